"""JAX over exchanges with one process per rank: `python -m tests.jax_job` runs every body on all ranks."""

from __future__ import annotations

from sparsecomm.collectives.transport.mpi import MpiTransport
from tests import jax_bodies, jax_request_bodies


def _main() -> None:
    with MpiTransport() as transport:
        for body in (*jax_bodies.BODIES, *jax_request_bodies.LONG_BODIES):
            body(transport)
            if transport.rank == 0:
                print(body.__name__, flush=True)


if __name__ == "__main__":
    _main()
