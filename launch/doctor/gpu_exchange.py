"""A child job of two ranks that sends GPU memory with MPI and compares what arrives.

Run as `python -m sparsecomm.launch.doctor.gpu_exchange FILE` under mpiexec. An MPI that cannot do it may crash, which
is why nothing else happens in this process; rank 1 leaves in FILE what it received.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from sparsecomm.errors import LaunchError
from sparsecomm.launch.doctor.cuda import DeviceMemory

# MPI libraries send short, middle and long messages in different ways.
SIZES: Final = (8, 1 << 16, 1 << 24)
WORKS: Final = "works"
NO_GPU: Final = "no GPU: "


def exchange(file: Path) -> None:
    """Send from rank 0 to rank 1, GPU memory to GPU memory, and write what came of it.

    Note: Collective over the world, which has two ranks.
    """
    from mpi4py import MPI

    comm, verdict = MPI.COMM_WORLD, WORKS
    for num_bytes in SIZES:
        try:
            memory = DeviceMemory(num_bytes)
        except LaunchError as err:
            file.write_text(f"{NO_GPU}{err}")
            comm.Abort(1)
        with memory:
            memory.write(pattern(num_bytes) if comm.rank == 0 else bytes(num_bytes))
            buffer = (MPI.buffer.fromaddress(memory.address, num_bytes), MPI.BYTE)
            if comm.rank == 0:
                comm.Send(buffer, dest=1)
            else:
                comm.Recv(buffer, source=0)
                if verdict == WORKS and memory.read(num_bytes) != pattern(num_bytes):
                    verdict = f"{num_bytes} bytes arrive wrong"
            comm.Barrier()
    if comm.rank == 1:
        file.write_text(verdict)


def pattern(num_bytes: int) -> bytes:
    """Return bytes that no fresh memory holds."""
    return (bytes(range(1, 252)) * (num_bytes // 251 + 1))[:num_bytes]


if __name__ == "__main__":
    exchange(Path(sys.argv[1]))
