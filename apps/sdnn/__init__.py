"""Application `sdnn`: inference of sparse deep neural networks, the Graph Challenge, on the ranks of a job."""
