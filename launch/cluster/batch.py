"""Jobs through the Slurm of a cluster: `srun`, and a job script for `sbatch`."""

from __future__ import annotations

import secrets
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sparsecomm.errors import InputError, LaunchError
from sparsecomm.launch.cluster.agent import enter
from sparsecomm.launch.cluster.interrupt import Interrupt
from sparsecomm.launch.cluster.jobs import DEADLINE_PASSED, run_on
from sparsecomm.launch.cluster.mpi import Mpi, rank_environment
from sparsecomm.launch.cluster.slurm import slurm_environment
from sparsecomm.launch.cluster.state import State
from sparsecomm.launch.cluster.tools import run_tool

_RUNNING: Final = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED")

_SCRIPT: Final = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --nodes={num_nodes}
#SBATCH --ntasks={num_ranks}
#SBATCH --output={output}
#SBATCH --error={error}
{exports}
exec {command}
"""


def run_srun(state: State, mpi: Mpi, command: Sequence[str], timeout_s: float = 0.0) -> int:
    """Run a command on all ranks by `srun` and return its exit code.

    Raises:
        InputError: the cluster has no Slurm, or the MPI does not speak its PMI.
        LaunchError: interrupted; the job is cancelled.
    """
    _check(state, mpi)
    name = f"sparsecomm-{secrets.token_hex(4)}"
    done = False
    try:
        srun = [*_srun(state), f"--job-name={name}", *mpi.resolve(command)]
        code = run_on(state, "head", mpi, srun, timeout_s)
        done = code != DEADLINE_PASSED
        return code
    finally:
        if not done:
            _slurm(state, "scancel", "--quiet", f"--name={name}")


def run_sbatch(state: State, mpi: Mpi, command: Sequence[str], timeout_s: float = 0.0) -> int:
    """Write a job script, submit it, wait for its end, print its output and return its exit code.

    Raises:
        InputError: as `run_srun`.
        LaunchError: interrupted; the job is cancelled.
    """
    _check(state, mpi)
    script = write_script(state, mpi, command)
    with Interrupt() as interrupt:
        job = _slurm(state, "sbatch", "--parsable", str(script)).strip()
        print(f"submitted {script} as job {job}", file=sys.stderr, flush=True)
        done = False
        try:
            code = _wait(state, job, interrupt, timeout_s)
            done = code != DEADLINE_PASSED
        finally:
            if not done:
                _slurm(state, "scancel", "--quiet", job)
    sys.stderr.write(_text(script.with_suffix(".err")))
    sys.stdout.write(_text(script.with_suffix(".out")))
    return code


def write_script(state: State, mpi: Mpi, command: Sequence[str]) -> Path:
    """Write a job script that needs nothing from the environment it is submitted in, and return its path."""
    name = f"job-{secrets.token_hex(4)}"
    script = state.folder / f"{name}.sh"
    exports = {**rank_environment(), "PATH": f"{mpi.bin}:/usr/local/bin:/usr/bin:/bin"}
    text = _SCRIPT.format(
        name=name,
        num_nodes=len(state.cluster.nodes),
        num_ranks=state.cluster.num_ranks,
        output=script.with_suffix(".out"),
        error=script.with_suffix(".err"),
        exports="\n".join(f"export {key}={shlex.quote(value)}" for key, value in exports.items()),
        command=shlex.join([*_srun(state), *mpi.resolve(command)]),
    )
    script.write_text(text)
    return script


def _srun(state: State) -> list[str]:
    sizes = ["-N", str(len(state.cluster.nodes)), "-n", str(state.cluster.num_ranks)]
    return ["srun", *sizes, "--mpi=pmi2", "--kill-on-bad-exit=1"]


def _check(state: State, mpi: Mpi) -> None:
    if not state.cluster.slurm:
        raise InputError(f"cluster {state.cluster.name!r} has no Slurm; make it with `sparsecomm cluster up --slurm`")
    if mpi.kind != "mpich":
        raise InputError(f"{mpi.kind} does not speak PMI-2, the PMI of this Slurm; use mpich, or --via mpiexec")


def _wait(state: State, job: str, interrupt: Interrupt, timeout_s: float) -> int:
    """Wait for the end of a job and return its exit code."""
    deadline = time.monotonic() + timeout_s
    while (facts := _job_facts(state, job))["JobState"] in _RUNNING:
        interrupt.check()
        if timeout_s and time.monotonic() > deadline:
            print(f"sparsecomm: error: job {job} not done after {timeout_s:g} s; cancelled", file=sys.stderr)
            return DEADLINE_PASSED
        time.sleep(0.2)
    code, _, number = facts["ExitCode"].partition(":")
    if facts["JobState"] == "COMPLETED":
        return 0
    return int(code) or (128 + int(number) if number != "0" else 1)


def _job_facts(state: State, job: str) -> dict[str, str]:
    """Return what `scontrol` says of a job."""
    words = _slurm(state, "scontrol", "show", "job", "-o", job).split()
    facts = {key: value for key, _, value in (word.partition("=") for word in words)}
    if not {"JobState", "ExitCode"} <= facts.keys():
        raise LaunchError(f"Slurm does not say how job {job} fares")
    return facts


def _slurm(state: State, *command: str) -> str:
    return run_tool(*enter(state, "head", list(command)), env=slurm_environment(state))


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
