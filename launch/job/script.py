"""Job scripts: directives for the scheduler, the environment, and the command."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sparsecomm.errors import InputError
from sparsecomm.launch.job.commands import flux_options, launch_command, slurm_options
from sparsecomm.launch.job.quoting import check_directive, check_free_directive, check_text, join_lines
from sparsecomm.launch.job.spec import JobSpec, clock

MARK: Final = "# Made by `sparsecomm launch "
# bsub reads directives from its standard input; in a script that it is given by name it does so at some sites only.
SUBMIT: Final = {"none": "bash", "slurm": "sbatch", "lsf": "bsub <", "flux": "flux batch", "pbs": "qsub"}


def job_script(spec: JobSpec) -> str:
    """Return a job script.

    Raises:
        InputError: a value can neither be quoted nor stand as it is where it goes.
    """
    _check(spec)
    head = ["#!/bin/bash", *_DIRECTIVES[spec.scheduler](spec), f"{MARK}{spec.title}`."]
    setup = [f"module load {shlex.quote(module)}" for module in spec.modules]
    if spec.venv is not None:
        setup.append(f"source {shlex.quote(f'{spec.venv}/bin/activate')}")
    if spec.scheduler == "pbs":
        setup.append('cd "$PBS_O_WORKDIR"')
    exports = [f"export {name}={shlex.quote(value)}" for name, value in spec.environment.items()]
    command = "exec " + join_lines(launch_command(spec, in_script=True))
    return "\n\n".join("\n".join(part) for part in (head, ["set -e", *setup], exports, [command]) if part) + "\n"


def write_script(path: Path, text: str) -> None:
    """Write a script, executable; one that we made is written anew.

    Raises:
        InputError: there is a file that we did not make, or it cannot be written.
    """
    try:
        if path.exists() and MARK not in path.read_text(errors="replace"):
            raise InputError(f"{path} is there and was not made by `sparsecomm launch`; give another -o FILE")
        beside = path.with_name(f".{path.name}.new")
        beside.write_text(text, encoding="utf-8")
        beside.chmod(0o755)
        beside.replace(path)
    except (OSError, UnicodeError) as err:
        raise InputError(f"cannot write {path}: {err}") from err


def _check(spec: JobSpec) -> None:
    """Hold every value that a user gave against where it goes."""
    for option, value in (("--name", spec.name), ("--account", spec.account), ("--queue", spec.queue)):
        if value is not None:
            check_directive(value, option)
    for text in spec.directives:
        check_free_directive(text, "--directive")
    words = {"--option": spec.options, "command": spec.command, "--module": spec.modules}
    words["--env"] = tuple(spec.environment.values())
    words["--venv"] = () if spec.venv is None else (spec.venv,)
    words["--hostfile"] = () if spec.hostfile is None else (spec.hostfile,)
    for option, values in words.items():
        for value in values:
            check_text(value, option)
    if any(not module or module.startswith("-") for module in spec.modules):
        raise InputError(f"--module {' '.join(spec.modules)!r}: a module has a name, which does not begin with a dash")


def _none(spec: JobSpec) -> list[str]:
    given = {"--time": spec.seconds, "--account": spec.account, "--queue": spec.queue, "--name": spec.name}
    unused = [option for option, value in given.items() if value is not None] + ["--directive"] * bool(spec.directives)
    if unused:
        raise InputError(f"{' and '.join(unused)} need a scheduler; give one with --scheduler slurm, lsf, flux or pbs")
    return []


def _slurm(spec: JobSpec) -> list[str]:
    sizes = [
        f"--nodes={spec.num_nodes}",
        f"--ntasks-per-node={spec.ranks_per_node}",
        f"--cpus-per-task={spec.cores_per_rank or 1}",
        *([f"--gpus-per-node={spec.gpus_per_node}"] if spec.gpus_per_node else []),
    ]
    return [f"#SBATCH {text}" for text in [*slurm_options(spec), *spec.directives, *sizes]]


def _lsf(spec: JobSpec) -> list[str]:
    minutes = math.ceil((spec.seconds or 0) / 60)
    texts = [
        *([f"-J {spec.name}"] if spec.name else []),
        *([f"-q {spec.queue}"] if spec.queue else []),
        *([f"-P {spec.account}"] if spec.account else []),
        *([f"-W {minutes // 60}:{minutes % 60:02}"] if minutes else []),
        f"-nnodes {spec.num_nodes}",
        f"-o {spec.name or 'sparsecomm'}.%J.out",
        *spec.directives,
    ]
    return [f"#BSUB {text}" for text in texts]


def _flux(spec: JobSpec) -> list[str]:
    sizes = [f"--nodes={spec.num_nodes}", "--exclusive"]
    return [f"#flux: {text}" for text in [*flux_options(spec), *spec.directives, *sizes]]


def _pbs(spec: JobSpec) -> list[str]:
    chunk = spec.resources or (
        f":ncpus={spec.ranks_per_node * (spec.cores_per_rank or 1)}:mpiprocs={spec.ranks_per_node}"
        + (f":ngpus={spec.gpus_per_node}" if spec.gpus_per_node else "")
    )
    texts = [
        *([f"-N {spec.name}"] if spec.name else []),
        *([f"-q {spec.queue}"] if spec.queue else []),
        *([f"-A {spec.account}"] if spec.account else []),
        f"-l select={spec.num_nodes}{chunk}",
        *([f"-l walltime={clock(spec.seconds)}"] if spec.seconds else []),
        "-j oe",
        *spec.directives,
    ]
    return [f"#PBS {text}" for text in texts]


_DIRECTIVES: Final[dict[str, Callable[[JobSpec], list[str]]]] = {
    "none": _none,
    "slurm": _slurm,
    "lsf": _lsf,
    "flux": _flux,
    "pbs": _pbs,
}
