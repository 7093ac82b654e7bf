"""What the launcher tells a process in its environment, before MPI is started."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple


class Names(NamedTuple):
    """The variables in which a launcher gives the number of ranks and this process's rank."""

    size: str
    rank: str


# MPI's own variables first: under mpirun inside Slurm, those of Slurm describe the step that runs mpirun's daemons.
_LAUNCHERS: Final = (
    Names("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    Names("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"),
    Names("PMI_SIZE", "PMI_RANK"),
    Names("PALS_SIZE", "PALS_RANKID"),
    Names("JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_RANK"),
    Names("FLUX_JOB_SIZE", "FLUX_TASK_RANK"),
    Names("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
)


def _find(environ: Mapping[str, str]) -> Names | None:
    for names in _LAUNCHERS:
        if environ.get(names.size, "").isdecimal() and environ.get(names.rank, "").isdecimal():
            return names
    return None


def env_rank(environ: Mapping[str, str]) -> int | None:
    """Return the rank that a launcher gave this process, or None outside a job."""
    names = _find(environ)
    return int(environ[names.rank]) if names else None


def env_size(environ: Mapping[str, str]) -> int | None:
    """Return the number of ranks that a launcher started, or None outside a job."""
    names = _find(environ)
    return int(environ[names.size]) if names else None
