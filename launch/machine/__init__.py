"""What this machine is made of, as the operating system and the GPU driver tell it: no MPI, no CUDA."""
