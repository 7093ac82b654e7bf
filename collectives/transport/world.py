"""Whether the job that MPI sees is the job that was started."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from sparsecomm.errors import LaunchError


class Launcher(NamedTuple):
    """A launcher and the variable in which it tells its processes how many they are."""

    variable: str
    name: str
    cure: str


_OWN_MPIEXEC = "start with the mpiexec that belongs to the MPI library of this Python environment"
_SRUN_PMI = (
    "choose a PMI that this MPI library speaks (`srun --mpi=list`, then `srun --mpi=pmix` or `--mpi=pmi2`), "
    "or start with the library's own mpiexec"
)

# In this order, because one launcher often starts another: under mpirun inside Slurm the variables of Slurm describe
# the step that runs mpirun's daemons, not the job.
_LAUNCHERS: Final = (
    Launcher("OMPI_COMM_WORLD_SIZE", "mpirun of Open MPI", _OWN_MPIEXEC),
    Launcher("MV2_COMM_WORLD_SIZE", "mpirun of MVAPICH", _OWN_MPIEXEC),
    Launcher("PMI_SIZE", "mpiexec of MPICH, Intel MPI or Cray", _OWN_MPIEXEC),
    Launcher("MPI_LOCALNRANKS", "mpiexec (hydra)", _OWN_MPIEXEC),
    Launcher("PALS_LOCAL_SIZE", "mpiexec of Cray PALS", _OWN_MPIEXEC),
    Launcher("JSM_NAMESPACE_SIZE", "jsrun", _OWN_MPIEXEC),
    Launcher("FLUX_JOB_SIZE", "flux run", "choose a PMI that this MPI library speaks (`flux run -o pmi=...`)"),
    Launcher("SLURM_STEP_NUM_TASKS", "srun", _SRUN_PMI),
)


def check_world(size: int, environ: Mapping[str, str]) -> None:
    """Refuse a world of one process under a launcher that started several.

    Every process of such a job believes that it is rank 0 of 1. `SLURM_NTASKS` is not asked: in a batch script it
    counts what was allocated, and plain `python` there is rightly alone.

    Args:
        size: of the world, as MPI gives it.
        environ: of the process.

    Raises:
        LaunchError: naming the launcher and the cure.
    """
    if size != 1:
        return
    for launcher in _LAUNCHERS:
        text = environ.get(launcher.variable, "")
        if text.isdecimal() and _counts(launcher, environ):
            _check(int(text), launcher)
            return


def _counts(launcher: Launcher, environ: Mapping[str, str]) -> bool:
    """Say whether the variable is about this process: only srun's tasks have a place in a step."""
    return launcher.name != "srun" or {"SLURM_PROCID", "SLURM_STEP_ID"} <= environ.keys()


def _check(started: int, launcher: Launcher) -> None:
    if started > 1:
        raise LaunchError(
            f"{launcher.name} started {started} processes ({launcher.variable}={started}), but the MPI library "
            f"sees a job of 1: they do not know of each other; {launcher.cure}"
        )
