"""Running a launch command here, without a shell."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

from sparsecomm.errors import InputError
from sparsecomm.launch.job.spec import JobSpec
from sparsecomm.launch.mpiexec import ask_mpiexec
from sparsecomm.launch.start import find_mpiexec
from sparsecomm.launch.world import find_place

_FAMILIES: Final = {"hydra": ("MPICH", "Intel MPI", "MVAPICH"), "openmpi": ("Open MPI",)}
_PRESETS: Final = {"hydra": "mpirun", "openmpi": "openmpi"}


def run_command(spec: JobSpec, words: Sequence[str]) -> int:
    """Run a launch command and return its exit code, 128 + n if signal n ended it.

    Raises:
        InputError: the launcher is not here, is another MPI's, or this process is a rank of a job already.
    """
    place = find_place(os.environ)
    if place is not None and place.size > 1:
        raise InputError(
            f"this is rank {place.rank} of a job of {place.size} already; print the command, or leave out --run"
        )
    command = list(words)
    if spec.launcher in _FAMILIES:
        command[0] = _own_mpiexec(spec.launcher)
    program = next(word for word in command if word != "env" and "=" not in word)
    if shutil.which(program) is None:
        raise InputError(
            f"no {program} on this machine; leave out --run to print the command, or write a script with -o"
        )
    sys.stdout.flush()
    return _wait(subprocess.Popen(command, stdin=subprocess.DEVNULL))


def _own_mpiexec(launcher: str) -> str:
    """Return the mpiexec of this Python environment, if it understands the options of `launcher`."""
    found = ask_mpiexec(find_mpiexec())
    if found.family and found.family not in _FAMILIES[launcher]:
        other = next((name for name, families in _FAMILIES.items() if found.family in families), None)
        cure = f"; use the preset {_PRESETS[other]}, or --launcher {other}" if other else ""
        raise InputError(f"{found} does not understand the options of {launcher}{cure}")
    return found.path


def _wait(process: subprocess.Popen[bytes]) -> int:
    try:
        code = process.wait()
    except BaseException:
        process.send_signal(signal.SIGTERM)  # launchers take their ranks with them
        process.wait()
        raise
    return code if code >= 0 else 128 - code
