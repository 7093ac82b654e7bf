"""What launchers say in the environment: each one's own variables, and one launcher inside another."""

from __future__ import annotations

import pytest

from sparsecomm.launch.world import Place, env_rank, env_size, find_place

OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_RANK": "5",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
}
HYDRA = {"PMI_SIZE": "8", "PMI_RANK": "5", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "4"}
MVAPICH = {
    "MV2_COMM_WORLD_SIZE": "8",
    "MV2_COMM_WORLD_RANK": "5",
    "MV2_COMM_WORLD_LOCAL_RANK": "1",
    "MV2_COMM_WORLD_LOCAL_SIZE": "4",
}
PALS = {
    "PMI_SIZE": "8",
    "PMI_RANK": "5",
    "PMI_LOCAL_RANK": "1",
    "PMI_LOCAL_SIZE": "4",
    "PALS_RANKID": "5",
    "PALS_LOCAL_RANKID": "1",
}
CRAY_PMI = {"PMI_SIZE": "8", "PMI_RANK": "5", "PMI_LOCAL_RANK": "1", "PMI_LOCAL_SIZE": "4"}
SRUN = {
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
}
JSRUN = {
    "JSM_NAMESPACE_SIZE": "8",
    "JSM_NAMESPACE_RANK": "5",
    "JSM_NAMESPACE_LOCAL_RANK": "1",
    "JSM_NAMESPACE_LOCAL_SIZE": "4",
}
FLUX = {"FLUX_JOB_SIZE": "8", "FLUX_TASK_RANK": "5", "FLUX_TASK_LOCAL_ID": "1", "FLUX_JOB_NNODES": "2"}
TORCHRUN = {"WORLD_SIZE": "8", "RANK": "5", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "TORCHELASTIC_RUN_ID": "x"}
# A step of one daemon a node: what Slurm says to the processes that a daemon starts.
DAEMONS = {**SRUN, "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "0", "SLURM_NODEID": "1"}
BATCH = {"SLURM_JOB_ID": "17", "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}

LAUNCHERS = {
    "open mpi": (OPEN_MPI, "Open MPI"),
    "hydra": (HYDRA, "hydra"),
    "mvapich": (MVAPICH, "MVAPICH"),
    "pals": (PALS, "PALS"),
    "pals of its own": ({"PALS_SIZE": "8", **PALS, "PALS_LOCAL_SIZE": "4"}, "PALS"),
    "pmi": (CRAY_PMI, "PMI"),
    "srun": (SRUN, "srun"),
    "jsrun": (JSRUN, "jsrun"),
    "flux": (FLUX, "flux run"),
    "torchrun": (TORCHRUN, "torchrun"),
    "variables of torchrun": ({k: v for k, v in TORCHRUN.items() if k[0] != "T"}, "like torchrun"),
    "srun --mpi=pmi2": ({**SRUN, "PMI_SIZE": "8", "PMI_RANK": "5"}, "srun"),
    "flux, pmi": ({**FLUX, "PMI_SIZE": "8", "PMI_RANK": "5"}, "flux run"),
    "mpirun inside Slurm": ({**DAEMONS, **OPEN_MPI}, "Open MPI"),
    "hydra inside Slurm": ({**DAEMONS, **HYDRA}, "hydra"),
    "mpirun in a batch script": ({**BATCH, **OPEN_MPI}, "Open MPI"),
    "flux inside Slurm": ({**DAEMONS, **FLUX}, "flux run"),
    "torchrun by srun": ({**DAEMONS, **TORCHRUN}, "torchrun"),
}


@pytest.mark.parametrize(("environ", "name"), LAUNCHERS.values(), ids=LAUNCHERS)
def test_every_launcher(environ: dict[str, str], name: str) -> None:
    place = find_place(environ)
    assert place is not None
    assert name in place.launcher
    assert (place.size, place.rank, place.local_rank, place.local_size) == (8, 5, 1, 4)
    assert environ[place.variable] == "8"


@pytest.mark.parametrize(
    ("environ", "rank", "size"),
    [
        (OPEN_MPI, 5, 8),
        (PALS, 5, 8),
        ({**DAEMONS, **HYDRA}, 5, 8),
        (SRUN, 5, 8),
        (TORCHRUN, None, None),  # starts no MPI job
        (BATCH, None, None),
        ({}, None, None),
    ],
    ids=["open mpi", "pals", "hydra inside Slurm", "srun", "torchrun", "batch script", "nothing"],
)
def test_rank_and_size_are_of_the_mpi_job(environ: dict[str, str], rank: int | None, size: int | None) -> None:
    assert (env_rank(environ), env_size(environ)) == (rank, size)


@pytest.mark.parametrize(
    "environ",
    [{}, BATCH, {"PMI_SIZE": "2"}, {"PMI_SIZE": "two", "PMI_RANK": "0"}, {"RANK": "3", "WORLD_SIZE": "4"}],
    ids=["nothing", "batch script", "no rank", "no number", "another program's RANK"],
)
def test_outside_a_job(environ: dict[str, str]) -> None:
    assert find_place(environ) is None


@pytest.mark.parametrize(
    ("tasks", "node", "expected"),
    [
        ("3,1(x2)", "0", 3),
        ("3,1(x2)", "2", 1),
        ("3,1(x2)", "3", None),
        ("many", "0", None),
        ("2(x9999999999)", "0", None),
    ],
)
def test_uneven_nodes_of_slurm(tasks: str, node: str, expected: int | None) -> None:
    place = find_place({**SRUN, "SLURM_STEP_TASKS_PER_NODE": tasks, "SLURM_NODEID": node})
    assert place is not None
    assert place.local_size == expected


def test_one_rank_needs_no_local_rank() -> None:
    assert find_place({"PMI_SIZE": "1", "PMI_RANK": "0"}) == Place("a launcher that speaks PMI", 1, 0, 0, 1, "PMI_SIZE")
