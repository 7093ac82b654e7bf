"""Whether a job that fell apart into jobs of one is told from a job of one."""

from __future__ import annotations

import pytest

from sparsecomm.collectives.transport.world import check_world
from sparsecomm.errors import LaunchError

STEP = {"SLURM_PROCID": "0", "SLURM_STEP_ID": "0"}


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "Open MPI started 4"),
        ({"PMI_SIZE": "3"}, "mpiexec of MPICH"),
        ({"MV2_COMM_WORLD_SIZE": "2"}, "MVAPICH"),
        ({"MPI_LOCALNRANKS": "2"}, "hydra"),
        ({"JSM_NAMESPACE_SIZE": "6"}, "jsrun"),
        ({"FLUX_JOB_SIZE": "6"}, "flux run"),
        ({"SLURM_STEP_NUM_TASKS": "8", **STEP}, "srun --mpi"),
        ({"OMPI_COMM_WORLD_SIZE": "4", "SLURM_STEP_NUM_TASKS": "1", **STEP}, "Open MPI"),
    ],
)
def test_a_job_in_pieces_is_refused(environ: dict[str, str], words: str) -> None:
    with pytest.raises(LaunchError, match=words):
        check_world(1, environ)


@pytest.mark.parametrize(
    ("size", "environ"),
    [
        (1, {}),
        (1, {"PMI_SIZE": "1"}),
        (4, {"PMI_SIZE": "4"}),
        # A job started inside another one inherits its variables.
        (2, {"OMPI_COMM_WORLD_SIZE": "4", "PMI_SIZE": "2"}),
        # Plain python in a batch script, in which Slurm counts what it allocated.
        (1, {"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_JOB_ID": "17"}),
        # mpirun inside Slurm starts its daemons, one a node, with srun.
        (1, {"OMPI_COMM_WORLD_SIZE": "1", "SLURM_STEP_NUM_TASKS": "4", **STEP}),
        (1, {"PMI_SIZE": "unknown"}),
    ],
)
def test_a_whole_job_is_not(size: int, environ: dict[str, str]) -> None:
    check_world(size, environ)
