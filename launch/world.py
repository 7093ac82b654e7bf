"""What the launcher tells a process in its environment, before MPI is started."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple


class Names(NamedTuple):
    """The variables in which a launcher tells a process its place; one that is empty is not given.

    Args:
        launcher: as people call it.
        size: number of ranks.
        rank: of this process.
        local_rank: its number on its node.
        local_size: ranks on its node.
        marks: variables that must be there too, or this launcher did not start this process.
    """

    launcher: str
    size: str
    rank: str
    local_rank: str
    local_size: str = ""
    marks: tuple[str, ...] = ()


# MPI's own variables first: under mpirun inside Slurm, those of Slurm describe the step that runs mpirun's daemons.
# Next those of a launcher that is itself started by others: Flux inside Slurm, torchrun by srun (one a node). PMI
# alone comes after all that speak it under a name of their own.
_OPEN_MPI: Final = Names(
    "mpirun of Open MPI",
    "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
)
_HYDRA: Final = Names(
    "mpiexec (hydra) of MPICH or Intel MPI",
    "PMI_SIZE",
    "PMI_RANK",
    "MPI_LOCALRANKID",
    "MPI_LOCALNRANKS",
    ("MPI_LOCALRANKID",),
)
_MVAPICH: Final = Names(
    "mpirun of MVAPICH",
    "MV2_COMM_WORLD_SIZE",
    "MV2_COMM_WORLD_RANK",
    "MV2_COMM_WORLD_LOCAL_RANK",
    "MV2_COMM_WORLD_LOCAL_SIZE",
)
_PALS: Final = Names("mpiexec of Cray PALS", "PALS_SIZE", "PALS_RANKID", "PALS_LOCAL_RANKID", "PALS_LOCAL_SIZE")
_PALS_PMI: Final = Names(
    "mpiexec of Cray PALS", "PMI_SIZE", "PALS_RANKID", "PALS_LOCAL_RANKID", "PMI_LOCAL_SIZE", ("PALS_RANKID",)
)
_JSRUN: Final = Names(
    "jsrun", "JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_RANK", "JSM_NAMESPACE_LOCAL_RANK", "JSM_NAMESPACE_LOCAL_SIZE"
)
_FLUX: Final = Names("flux run", "FLUX_JOB_SIZE", "FLUX_TASK_RANK", "FLUX_TASK_LOCAL_ID")
_TORCHRUN: Final = Names("torchrun", "WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", ("TORCHELASTIC_RUN_ID",))
_SRUN: Final = Names("srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID", "", ("SLURM_STEP_ID",))
_PMI: Final = Names("a launcher that speaks PMI", "PMI_SIZE", "PMI_RANK", "PMI_LOCAL_RANK", "PMI_LOCAL_SIZE")
_BY_HAND: Final = Names(
    "a launcher like torchrun", "WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", ("LOCAL_RANK",)
)

_MPI_LAUNCHERS: Final = (_OPEN_MPI, _HYDRA, _MVAPICH, _PALS, _PALS_PMI, _JSRUN, _FLUX, _SRUN, _PMI)
_LAUNCHERS: Final = (_OPEN_MPI, _HYDRA, _MVAPICH, _PALS, _PALS_PMI, _JSRUN, _FLUX, _TORCHRUN, _SRUN, _PMI, _BY_HAND)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process stands in the job that a launcher started.

    Args:
        launcher: as people call it.
        size: number of ranks.
        rank: of this process.
        local_rank: its number on its node, or None where the launcher does not say.
        local_size: ranks on its node, or None.
        variable: in which the launcher gave the size.
    """

    launcher: str
    size: int
    rank: int
    local_rank: int | None
    local_size: int | None
    variable: str


def find_place(environ: Mapping[str, str]) -> Place | None:
    """Return what the innermost launcher says, or None outside a job; torchrun counts too."""
    names = _find(environ, _LAUNCHERS)
    return _place(names, environ) if names else None


def env_rank(environ: Mapping[str, str]) -> int | None:
    """Return the rank in the MPI job that a launcher gave this process, or None outside a job."""
    names = _find(environ, _MPI_LAUNCHERS)
    return _number(environ, names.rank) if names else None


def env_size(environ: Mapping[str, str]) -> int | None:
    """Return the number of ranks of the MPI job that a launcher started, or None outside a job."""
    names = _find(environ, _MPI_LAUNCHERS)
    return _number(environ, names.size) if names else None


def _find(environ: Mapping[str, str], launchers: tuple[Names, ...]) -> Names | None:
    return next((names for names in launchers if _fits(names, environ)), None)


def _fits(names: Names, environ: Mapping[str, str]) -> bool:
    given = (_number(environ, names.size), _number(environ, names.rank))
    return None not in given and all(mark in environ for mark in names.marks)


def _number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name, "") if name else ""
    return int(text) if text.isdecimal() else None


def _place(names: Names, environ: Mapping[str, str]) -> Place:
    size, rank = int(environ[names.size]), int(environ[names.rank])
    local_rank, local_size = _number(environ, names.local_rank), _number(environ, names.local_size)
    if local_size is None:
        local_size = _local_size(names, size, environ)
    if size == 1:
        local_rank, local_size = 0, 1
    return Place(names.launcher, size, rank, local_rank, local_size, names.size)


def _local_size(names: Names, size: int, environ: Mapping[str, str]) -> int | None:
    """Return the ranks on this node where the launcher gives them in a form of its own."""
    if names is _SRUN:
        tasks = _unfold(environ.get("SLURM_STEP_TASKS_PER_NODE", ""))
        node = _number(environ, "SLURM_NODEID")
        return tasks[node] if node is not None and node < len(tasks) else None
    nodes = _number(environ, "FLUX_JOB_NNODES") if names is _FLUX else None
    return size // nodes if nodes and size % nodes == 0 else None


def _unfold(text: str) -> list[int]:
    """Return the numbers of Slurm's short form: `2(x3),1` is 2, 2, 2, 1."""
    counts: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if found is None or int(found[2] or 1) > 1 << 20:
            return []
        counts += [int(found[1])] * int(found[2] or 1)
    return counts
