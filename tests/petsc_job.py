"""PETSc itself with one process per rank: `mpirun -n 4 python -m tests.petsc_job`, by a Python that has petsc4py."""

from __future__ import annotations

from mpi4py import MPI

from petsc4py import PETSc

from sparsecomm.collectives.transport.mpi import MpiTransport
from tests import petsc_bodies


def _main() -> None:
    kit = petsc_bodies.Kit(PETSc, MPI.COMM_WORLD, MPI.DOUBLE, MPI.REPLACE)
    with MpiTransport() as transport:
        for body in petsc_bodies.BODIES:
            body(kit, transport)
            if transport.rank == 0:
                print(body.__name__, flush=True)


if __name__ == "__main__":
    _main()
