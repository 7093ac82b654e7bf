"""The command that starts a job's ranks, for each launcher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from sparsecomm.errors import InputError
from sparsecomm.launch.job.spec import JobSpec, clock

# Words that belong on one line; flattened they are the command.
Groups: TypeAlias = list[list[str]]


def launch_command(spec: JobSpec, *, in_script: bool) -> Groups:
    """Return the command that starts the ranks.

    Args:
        spec: the job.
        in_script: whether directives and `export` lines have said to the scheduler and the shell what they can;
            otherwise the command says all of it.

    Raises:
        InputError: the launcher cannot do what the job wants.
    """
    if not in_script:
        _refuse_unused(spec)
    groups = _BUILDERS[spec.launcher](spec, in_script)
    before = [] if in_script or spec.launcher in _PASSES_VARIABLES or not spec.environment else [_env(spec)]
    return [*before, *groups, *([option] for option in spec.options), list(spec.command)]


def _env(spec: JobSpec) -> list[str]:
    return ["env", *(f"{name}={value}" for name, value in spec.environment.items())]


def _refuse_unused(spec: JobSpec) -> None:
    """Refuse what only a job script can say."""
    given: dict[str, object] = {
        "--time": spec.seconds,
        "--account": spec.account,
        "--queue": spec.queue,
        "--name": spec.name,
    }
    if spec.launcher in ("srun", "flux"):
        given = {}
    given |= {"--module": spec.modules or None, "--venv": spec.venv}
    unused = [option for option, value in given.items() if value is not None]
    if unused:
        raise InputError(
            f"{' and '.join(unused)} cannot be given to {spec.launcher} itself; write a job script with -o FILE"
        )


def _srun(spec: JobSpec, in_script: bool) -> Groups:
    asked = [] if in_script else [*slurm_options(spec), *_words(spec.directives)]
    gpus = [[f"--gpus-per-node={spec.gpus_per_node}"], ["--gpu-bind=none"]] if spec.gpus_per_node else []
    return [
        ["srun"],
        *([option] for option in asked),
        [f"--nodes={spec.num_nodes}"],
        [f"--ntasks={spec.num_ranks}"],
        [f"--ntasks-per-node={spec.ranks_per_node}"],
        # On this line itself: since 22.05 srun does not take it over from sbatch.
        [f"--cpus-per-task={spec.cores_per_rank or 1}"],
        [f"--cpu-bind={(spec.cpu_masks or 'cores') if spec.bind else 'none'}"],
        *gpus,
        ["--kill-on-bad-exit=1"],
    ]


def slurm_options(spec: JobSpec) -> list[str]:
    """Return what sbatch and srun are both asked, but for sizes and what a site adds."""
    given = {
        "job-name": spec.name,
        spec.queue_option: spec.queue,
        "account": spec.account,
        "time": None if spec.seconds is None else clock(spec.seconds),
    }
    return [f"--{option}={value}" for option, value in given.items() if value is not None]


def _words(directives: tuple[str, ...]) -> list[str]:
    return [word for text in directives for word in text.split()]


def _jsrun(spec: JobSpec, in_script: bool) -> Groups:
    sets, ranks, gpus = _resource_sets(spec)
    cores = spec.cores_per_rank or 1
    return [
        ["jsrun"],
        [f"-n{spec.num_nodes * sets}"],
        [f"-r{sets}", f"-a{ranks}", f"-g{gpus}", f"-c{cores * ranks}"],
        ["-d", "packed"],
        ["-b", f"packed:{cores}" if spec.bind else "none"],
        *([["--smpiargs=-gpu"]] if spec.gpus_per_node else []),
    ]


def _resource_sets(spec: JobSpec) -> tuple[int, int, int]:
    """Return resource sets a node, and ranks and GPUs a set."""
    ranks, gpus = spec.ranks_per_node, spec.gpus_per_node
    if gpus and ranks % gpus == 0:
        return gpus, ranks // gpus, 1
    if gpus % ranks == 0:
        return ranks, 1, gpus // ranks
    raise InputError(
        f"{ranks} ranks a node cannot share {gpus} GPUs evenly; give --ranks-per-node or --gpus-per-node so that one "
        "divides the other"
    )


def _flux(spec: JobSpec, in_script: bool) -> Groups:
    asked = [] if in_script else [*flux_options(spec), *_words(spec.directives)]
    per_rank = _flux_gpus(spec)
    gpus = [[f"--gpus-per-task={per_rank}"], ["-o", "gpu-affinity=off"]] if per_rank else []
    return [
        ["flux", "run"],
        *([option] for option in asked),
        [f"--nodes={spec.num_nodes}"],
        [f"--ntasks={spec.num_ranks}"],
        [f"--cores-per-task={spec.cores_per_rank or 1}"],
        ["-o", f"cpu-affinity={'per-task' if spec.bind else 'off'}"],
        *gpus,
    ]


def _flux_gpus(spec: JobSpec) -> int:
    if spec.gpus_per_node % spec.ranks_per_node:
        raise InputError(
            f"flux gives every rank as many GPUs as the others; {spec.ranks_per_node} ranks a node cannot have "
            f"{spec.gpus_per_node}"
        )
    return spec.gpus_per_node // spec.ranks_per_node


def flux_options(spec: JobSpec) -> list[str]:
    """Return what flux batch and flux run are both asked, but for sizes and what a site adds."""
    given = {
        "job-name": spec.name,
        "queue": spec.queue,
        "bank": spec.account,
        "time-limit": None if spec.seconds is None else f"{spec.seconds}s",
    }
    return [f"--{option}={value}" for option, value in given.items() if value is not None]


def _pals(spec: JobSpec, in_script: bool) -> Groups:
    cores = spec.cores_per_rank or 1
    return [
        ["mpiexec"],
        ["-n", str(spec.num_ranks)],
        ["--ppn", str(spec.ranks_per_node)],
        ["--depth", str(cores)],
        ["--cpu-bind", "depth" if spec.bind else "none"],
        *(["--env", f"{name}={value}"] for name, value in spec.environment.items()),
    ]


def _hydra(spec: JobSpec, in_script: bool) -> Groups:
    bound = f"core:{spec.cores_per_rank}" if spec.cores_per_rank and spec.bind else "none"
    return [
        ["mpiexec"],
        ["-n", str(spec.num_ranks)],
        ["-ppn", str(spec.ranks_per_node)],
        ["-bind-to", bound],
        *([["-hostfile", spec.hostfile]] if spec.hostfile else []),
        *(["-genv", name, value] for name, value in spec.environment.items()),
    ]


def _openmpi(spec: JobSpec, in_script: bool) -> Groups:
    bound = spec.cores_per_rank if spec.bind else None
    place = f"ppr:{spec.ranks_per_node}:node" + (f":PE={bound}" if bound else "")
    return [
        ["mpirun"],
        ["-n", str(spec.num_ranks)],
        ["--map-by", place],
        ["--bind-to", "core" if bound else "none"],
        *([["--hostfile", spec.hostfile]] if spec.hostfile else []),
        *(["-x", f"{name}={value}"] for name, value in spec.environment.items()),
    ]


_BUILDERS: Final[dict[str, Callable[[JobSpec, bool], Groups]]] = {
    "srun": _srun,
    "jsrun": _jsrun,
    "flux": _flux,
    "pals": _pals,
    "hydra": _hydra,
    "openmpi": _openmpi,
}
# These do not bring the environment to other nodes, or not all of it, and have options that do.
_PASSES_VARIABLES: Final = ("hydra", "openmpi", "pals")
