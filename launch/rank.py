"""Runs one rank for a launcher of ours and writes down how it ended, and what was wrong if it did not end well.

What a launcher of MPI makes of a rank that was killed differs from one to the next: some name only a process number,
some return 0. Usage: python -m sparsecomm.launch.rank FOLDER COMMAND ...
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sparsecomm.collectives.transport.leave import FOLDER
from sparsecomm.launch.world import env_rank

_PASSED_ON: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
_SAME_SIGNAL_S: Final = 1.0  # who ends a whole job signals the rank and this process, in any order
_PR_SET_PDEATHSIG: Final = 1


def run_rank(folder: Path, command: Sequence[str]) -> int:
    """Run a rank, leave its exit code in the folder, and return it; 128 + n if signal n ended it.

    Args:
        folder: of the job, on the file system of all its ranks. `N` is the exit code of rank N, `N.fault` what was
            wrong with its end; a rank that has joined the job makes `N.joined` and, when its program has come to its
            end, `N.left`.
        command: of the rank.
    """
    rank, told = env_rank(os.environ) or 0, set[int]()
    waiting = signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)  # until there is somebody to pass them on to

    def prepare() -> None:
        _die_with_parent()
        signal.pthread_sigmask(signal.SIG_SETMASK, waiting)

    process = subprocess.Popen(command, env={**os.environ, FOLDER: str(folder)}, close_fds=False, preexec_fn=prepare)

    def pass_on(number: int, frame: object) -> None:
        told.add(number)
        process.send_signal(number)

    for number in _PASSED_ON:
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_SETMASK, waiting)
    code = process.wait()
    until_s = time.monotonic() + _SAME_SIGNAL_S
    while -code in _PASSED_ON and -code not in told and time.monotonic() < until_s:
        time.sleep(0.01)
    fault = _fault(code, told, folder, rank)
    code = 128 - code if code < 0 else code or (1 if fault else 0)
    _write(folder / str(rank), str(code))
    if fault:
        # Not printed here: launchers drop what is still in their pipes when they end a job.
        _write(folder / f"{rank}.fault", f"rank {rank} on host {platform.node()}: {fault}")
    return code


def _fault(code: int, told: set[int], folder: Path, rank: int) -> str:
    """Return what is wrong with the end of a rank; empty where nothing is, or where it says so itself."""
    if code < 0 and -code not in told:
        return f"killed by signal {-code} ({signal.Signals(-code).name})"
    if code == 0 and (folder / f"{rank}.joined").exists() and not (folder / f"{rank}.left").exists():
        return "left with exit code 0 in the middle of the job"
    return ""


def _die_with_parent() -> None:
    """Have the kernel kill the rank when this process is killed: a stopped rank hears nothing else."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _write(path: Path, text: str) -> None:
    beside = path.with_name(f"{path.name}.new")
    beside.write_text(text)
    beside.rename(path)


def _end(code: int) -> None:
    """End as the rank did: some launchers clean up only after a signal."""
    if code > 128:
        if code - 128 in _PASSED_ON:
            signal.signal(code - 128, signal.SIG_DFL)
        os.kill(os.getpid(), code - 128)
    sys.exit(code)


if __name__ == "__main__":
    _end(run_rank(Path(sys.argv[1]), sys.argv[2:]))
