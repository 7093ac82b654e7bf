"""The ranks of PETSc beside those of `petsc.py`: needs numpy, mpi4py and petsc4py, and nothing of ours.

mpirun -n 8 python3 benchmarks/_petsc_job.py FOLDER move|multiply ROUNDS
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
from _turns import WARM_UPS, Turns, timed
from petsc4py import PETSc


def main(folder: Path, what: str, rounds: int) -> None:
    """Measure one matrix and write seconds of the slowest rank, and the norm of what came out."""
    comm = MPI.COMM_WORLD
    offsets, indptr, indices, data, x = (
        np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("offsets", "indptr", "indices", "data", "x")
    )
    first, last = int(offsets[comm.rank]), int(offsets[comm.rank + 1])
    begin, end = int(indptr[first]), int(indptr[last])
    rows = (indptr[first : last + 1] - begin, np.array(indices[begin:end]), np.array(data[begin:end]))
    make = star_forest if what == "move" else product
    act, norm = make(comm, offsets, rows, np.array(x[first:last]))
    squares = comm.allreduce(norm())
    turns, mine = Turns(folder / "turns", 1, comm.rank), []
    comm.Barrier()
    turns.ready()
    for _ in range(WARM_UPS + rounds):
        turns.wait()
        mine.append(timed(comm, act))
        comm.Barrier()
        turns.pass_on()
    slowest = np.empty(len(mine))
    comm.Allreduce(np.array(mine), slowest, MPI.MAX)
    if comm.rank == 0:
        version = ".".join(map(str, PETSc.Sys.getVersion()))
        facts = {"petsc": version, "petsc_mpi": MPI.Get_library_version().split(",")[0].strip()}
        found = {"seconds": slowest[WARM_UPS:].tolist(), "norm": float(np.sqrt(squares)), "facts": facts}
        (folder / "petsc.json").write_text(json.dumps(found))


def star_forest(comm: Any, offsets: Any, rows: Any, x: Any) -> tuple[Callable[[], object], Callable[[], float]]:
    """Return the fetching of all rows that are needed, each once, by PetscSF with a row as its unit."""
    first, last = offsets[comm.rank : comm.rank + 2]
    needed = np.unique(rows[1])
    needed = needed[(needed < first) | (needed >= last)]
    owner = np.searchsorted(offsets, needed, side="right") - 1
    remote = np.stack([owner, needed - offsets[owner]], axis=1).astype(PETSc.IntType)
    forest = PETSc.SF().create(comm)
    forest.setGraph(int(last - first), None, remote.reshape(-1))
    forest.setUp()
    unit = MPI.FLOAT.Create_contiguous(x.shape[1]).Commit()
    ghosts = np.empty((needed.size, x.shape[1]), dtype=np.float32)

    def act() -> None:
        forest.bcastBegin(unit, x, ghosts, MPI.REPLACE)
        forest.bcastEnd(unit, x, ghosts, MPI.REPLACE)

    act()
    return act, lambda: float(np.square(ghosts, dtype=np.float64).sum())


def product(comm: Any, offsets: Any, rows: Any, x: Any) -> tuple[Callable[[], object], Callable[[], float]]:
    """Return MatMatMult of a distributed sparse matrix with a distributed dense one, into a result that is kept."""
    size, own = int(offsets[-1]), x.shape[0]
    csr = (rows[0].astype(PETSc.IntType), rows[1].astype(PETSc.IntType), rows[2].astype(PETSc.ScalarType))
    matrix = PETSc.Mat().createAIJ(size=((own, size), (own, size)), csr=csr, comm=comm)
    columns = np.asfortranarray(x, dtype=PETSc.ScalarType)
    block = PETSc.Mat().createDense(size=((own, size), (None, x.shape[1])), array=columns, comm=comm)
    block.assemble()
    result = matrix.matMult(block)
    return (
        lambda: matrix.matMult(block, result),
        lambda: float(np.square(result.getDenseArray()).sum()),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
