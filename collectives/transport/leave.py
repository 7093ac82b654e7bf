"""How a rank comes and goes: marks for the launcher, and signals that ask a job to stop."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from types import FrameType
from typing import Final

from sparsecomm.errors import StoppedError

FOLDER: Final = "SPARSECOMM_JOB"  # set by a launcher that wants to know

_asked: signal.Signals | None = None


def leave_on_signals() -> None:
    """Make SIGTERM and SIGUSR1, on any rank, end the job at the next boundary: the next call that all ranks agree in.

    A second signal acts at once. Call it in the main thread.
    """
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, _ask)


def stop_asked() -> StoppedError | None:
    """Return the error with which this rank wants all to leave, if it was asked to."""
    return None if _asked is None else StoppedError(f"stopped by {_asked.name}; all ranks left together")


def mark_joined(rank: int) -> None:
    """Tell the launcher that this rank is in the job, and which segments of shared memory it maps."""
    folder = os.environ.get(FOLDER)
    if folder:
        Path(folder, f"{rank}.joined").write_text("".join(f"{path}\n" for path in sorted(_segments())))


def mark_left(rank: int) -> None:
    """Tell the launcher that this rank has come to the end of its program."""
    folder = os.environ.get(FOLDER)
    if folder:
        Path(folder, f"{rank}.left").touch()


def _ask(number: int, frame: FrameType | None) -> None:
    global _asked
    if _asked is not None:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    _asked = signal.Signals(number)


def _segments() -> set[str]:
    maps = Path("/proc/self/maps")
    return set(re.findall(r"/dev/shm/\S+", maps.read_text())) if maps.exists() else set()
