"""The part of a process that joins the job: a child, because an MPI that cannot start ends its process.

Run as `python -m sparsecomm.launch.doctor.member FOLDER`. It reads the process that its parent found and leaves what
MPI says about itself and, at rank 0, what all ranks found.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsecomm.launch.doctor.facts import Process

PROCESS: Final = "process"
LIBRARY: Final = "library"
JOINED: Final = "joined"


def join_job(folder: Path) -> None:
    """Start MPI and gather what the ranks found; what has been reached is in `folder` if this ends here.

    Note: Collective over the world.
    """
    process: Process = pickle.loads((folder / PROCESS).read_bytes())
    comm = _start(folder)
    shared = comm.Split_type(_mpi().COMM_TYPE_SHARED)
    node = shared.bcast(comm.rank)
    gathered = comm.gather((process, node))
    if gathered is not None:
        _leave(folder / JOINED, (comm.size, [one for one, _ in gathered], _count([node for _, node in gathered])))
    _mpi().Finalize()  # waits for all; mpi4py does it by itself only where it has started MPI


def _start(folder: Path) -> MPI.Intracomm:
    import mpi4py

    mpi4py.rc.initialize = False  # the library can be asked before it starts, and may not start
    mpi = _mpi()
    (folder / LIBRARY).write_text(mpi.Get_library_version())
    mpi.Init_thread(mpi.THREAD_SERIALIZED)
    return mpi.COMM_WORLD  # type: ignore[no-any-return]


def _mpi() -> Any:
    from mpi4py import MPI

    return MPI


def _count(first_ranks: list[int]) -> list[int]:
    """Number nodes from 0 in order of their first ranks."""
    numbers = {rank: number for number, rank in enumerate(sorted(set(first_ranks)))}
    return [numbers[rank] for rank in first_ranks]


def _leave(file: Path, value: object) -> None:
    """Write a file that is complete as soon as it is there."""
    beside = file.with_suffix(".new")
    beside.write_bytes(pickle.dumps(value))
    beside.rename(file)


if __name__ == "__main__":
    join_job(Path(sys.argv[1]))
