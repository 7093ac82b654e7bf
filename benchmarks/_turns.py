"""Two jobs of different MPIs that take turns: the ranks of one sleep while the other is measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

WARM_UPS: Final = 2
_LOOK_S: Final = 0.003
_STOP: Final = "stop"


class Turns:
    """One rank's view of whose turn it is; the jobs share a folder, in which a file begins each turn.

    Args:
        folder: empty in the beginning.
        job: 0 for the job that has turns 0, 2, 4 and so on, 1 for the other one.
        rank: of the job.
    """

    def __init__(self, folder: Path, job: int, rank: int) -> None:
        self._folder, self._job, self._rank = folder, job, rank
        self._next = job

    def ready(self) -> None:
        """Say, on rank 0, that this job is set up; job 0 begins once the other one is."""
        if self._rank == 0:
            (self._folder / f"ready{self._job}").touch()
        if self._job == 0:
            self._wait_for("ready1")
            (self._folder / "0").touch()

    def wait(self) -> None:
        """Sleep until it is this job's turn."""
        self._wait_for(str(self._next))

    def pass_on(self) -> None:
        """End the turn; the ranks of the job have all come here."""
        if self._rank == 0:
            (self._folder / str(self._next + 1)).touch()
        self._next += 2

    def _wait_for(self, name: str) -> None:
        while not (self._folder / name).exists():
            if (self._folder / _STOP).exists():
                raise SystemExit("the other job has ended")
            time.sleep(_LOOK_S)


def alone(folder: Path, turns: int) -> None:
    """Let job 0 have all its turns at once: there is no other job."""
    (folder / "ready1").touch()
    for turn in range(2 * turns):
        (folder / str(turn)).touch()


def stop(folder: Path) -> None:
    """Make both jobs end."""
    (folder / _STOP).touch()


def timed(comm: Any, act: Callable[[], object]) -> float:
    """Return the seconds of this rank."""
    comm.Barrier()
    time.sleep(0.01)  # the links' bursts fill again
    comm.Barrier()
    begin = time.perf_counter()
    act()
    return time.perf_counter() - begin
