"""PyTorch over exchanges with one process per rank: `python -m tests.torch_job` runs every body on all ranks."""

from __future__ import annotations

import torch

from sparsecomm.collectives.transport.mpi import MpiTransport
from tests import torch_bodies


def _main() -> None:
    torch.set_num_threads(1)
    with MpiTransport() as transport:
        # Compiling takes seconds on every rank: once is enough.
        bodies = (*torch_bodies.BODIES, *((torch_bodies.check_compiled,) if transport.num_ranks == 2 else ()))
        for body in bodies:
            body(transport)
            if transport.rank == 0:
                print(body.__name__, flush=True)


if __name__ == "__main__":
    _main()
