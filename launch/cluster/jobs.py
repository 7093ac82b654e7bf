"""Running a command on a cluster: on all its ranks, on one node, or through Slurm."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sparsecomm.launch.cluster.agent import enter
from sparsecomm.launch.cluster.interrupt import Interrupt
from sparsecomm.launch.cluster.mpi import Mpi, job_environment, mpiexec_command
from sparsecomm.launch.cluster.processes import end_processes, find_processes
from sparsecomm.launch.cluster.slurm import slurm_environment
from sparsecomm.launch.cluster.state import State
from sparsecomm.launch.start import rank_command, say_faults

DEADLINE_PASSED: Final = 86

_RUN: Final = "SPARSECOMM_CLUSTER_RUN"
_GRACE_S: Final = 3.0  # for a launcher to end its ranks itself
# What `sbatch` sets in its jobs. They have the environment of the command that submitted them, and outlive it.
_OF_SBATCH: Final = "ENVIRONMENT=BATCH"


def run_ranks(state: State, mpi: Mpi, command: Sequence[str], timeout_s: float = 0.0) -> int:
    """Run a command once per rank, on all nodes, and return its exit code.

    Args:
        state: the cluster.
        mpi: whose mpiexec starts the ranks.
        command: its first word is looked up in the environment of `mpi`.
        timeout_s: seconds until everything is ended and 86 returned; 0 for no limit.

    Raises:
        LaunchError: interrupted; nothing of the job is left.
    """
    marks = state.folder / "runs" / secrets.token_hex(8)
    marks.mkdir(parents=True)
    try:
        ranks = [*rank_command(marks), *mpi.resolve(command)]
        argv, variables = mpiexec_command(state, mpi, ranks)
        try:
            code = _run(state, "head", argv, {**job_environment(mpi), **variables}, timeout_s, marks)
        finally:
            say_faults(marks)
        return _exit_code(_read_marks(marks), state.cluster.num_ranks, code)
    finally:
        shutil.rmtree(marks, ignore_errors=True)


def run_on(state: State, node: str, mpi: Mpi, command: Sequence[str], timeout_s: float = 0.0) -> int:
    """Run a command once, on one node, and return its exit code.

    Raises:
        LaunchError: interrupted; nothing of the command is left.
    """
    environ = {**job_environment(mpi), **slurm_environment(state)}
    return _run(state, node, mpi.resolve(command), environ, timeout_s)


def _run(
    state: State, node: str, command: list[str], environ: dict[str, str], timeout_s: float, marks: Path | None = None
) -> int:
    """Run a command on a node in a session of its own; whatever happens, leave none of its processes behind."""
    variable = f"{_RUN}={secrets.token_hex(16)}"
    namespaces = [one.namespace for one in state.cluster.all_nodes]
    environ = {**environ, _RUN: variable.partition("=")[2]}
    stdin = subprocess.DEVNULL if sys.stdin is None or sys.stdin.isatty() else None
    with Interrupt() as interrupt:
        process = subprocess.Popen(enter(state, node, command), env=environ, stdin=stdin, start_new_session=True)
        try:
            return _wait(process, interrupt, timeout_s, marks)
        finally:
            _end(process)
            end_processes(lambda: find_processes(namespaces, variable, without=_OF_SBATCH), _GRACE_S)


def _wait(process: subprocess.Popen[bytes], interrupt: Interrupt, timeout_s: float, marks: Path | None) -> int:
    """Return the exit code of a launcher, 1 if it does not end although one of its ranks failed.

    A launcher waits for ever for the ranks of a node that it cannot reach any more.
    """
    deadline = time.monotonic() + timeout_s
    while marks is None or not _failed_long_ago(marks):
        interrupt.check()
        try:
            code = process.wait(0.1)
            return code if code >= 0 else 128 - code
        except subprocess.TimeoutExpired:
            if timeout_s and time.monotonic() > deadline:
                print(f"sparsecomm: error: not done after {timeout_s:g} s; ended", file=sys.stderr)
                return DEADLINE_PASSED
    return 1


def _failed_long_ago(marks: Path) -> bool:
    """Say whether a rank failed so long ago that its launcher should have ended the others."""
    failed = [path.stat().st_mtime for path in marks.iterdir() if path.name.isdecimal() and path.read_text() != "0"]
    return bool(failed) and time.time() - min(failed) > _GRACE_S


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask a launcher to end itself and its ranks; kill it where it does not."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _read_marks(folder: Path) -> dict[int, int]:
    """Return `rank_to_code` of the ranks that ended by themselves, the first to end first."""
    marks = [path for path in folder.iterdir() if path.name.isdecimal()]
    marks.sort(key=lambda path: path.stat().st_mtime_ns)
    return {int(path.name): int(path.read_text()) for path in marks}


def _exit_code(rank_to_code: dict[int, int], num_ranks: int, launcher: int) -> int:
    """Return the exit code of a job: that of the first rank that failed, else what the launcher says."""
    if launcher == DEADLINE_PASSED:
        return launcher
    failed = next((code for code in rank_to_code.values() if code), launcher)
    missing = sorted(set(range(num_ranks)) - rank_to_code.keys())
    if missing and not failed:
        ranks = ", ".join(str(rank) for rank in missing)
        print(f"sparsecomm: error: ranks {ranks} were ended before they were done", file=sys.stderr)
        return 1
    return failed
