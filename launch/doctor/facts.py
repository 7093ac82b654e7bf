"""What is known of a job: every process's view of its machine, and what MPI made of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sparsecomm.launch.doctor.gpu_view import GpuView, find_view
from sparsecomm.launch.doctor.limits import Limits, find_limits
from sparsecomm.launch.doctor.software import Software, find_software
from sparsecomm.launch.machine.cpus import Cpus, find_cpus
from sparsecomm.launch.machine.gpus import find_gpus
from sparsecomm.launch.world import Place, find_place

# Variables that findings ask for; the rest of the environment is nobody's business.
VARIABLES: Final = (
    "CUDA_VISIBLE_DEVICES",
    "MPIR_CVAR_CH4_PROGRESS_THROTTLE",
    "NCCL_MULTI_RANK_GPU_ENABLE",
    "NUMBA_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OMPI_ALLOW_RUN_AS_ROOT",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM",
    "ROCR_VISIBLE_DEVICES",
    "SLURM_GPUS_PER_TASK",
    "SLURM_GPU_BIND",
    "SLURM_JOB_ID",
    "SLURM_MPI_TYPE",
    "SLURM_STEP_ID",
    "SPARSECOMM_GPU_MAP",
)


@dataclass(frozen=True, slots=True)
class Process:
    """One process, as it sees itself and its machine.

    Args:
        host: name of the node.
        place: in the job, as the launcher gives it, or None outside one.
        cpus: sockets, NUMA nodes and the affinity of the process.
        gpus: that it sees.
        limits: of the process.
        software: of its environment.
        variables: name and value of those that matter.
    """

    host: str
    place: Place | None
    cpus: Cpus
    gpus: GpuView
    limits: Limits
    software: Software
    variables: tuple[tuple[str, str], ...] = ()

    def variable(self, name: str) -> str:
        """Return the value of a variable, or nothing where it is not set."""
        return dict(self.variables).get(name, "")


@dataclass(frozen=True, slots=True)
class World:
    """What MPI is here.

    Args:
        library: what the MPI library says about itself, its first line; or empty where there is none.
        family: `MPICH`, `Open MPI`, ..., or empty.
        version: or empty.
        size: of the world, or None where MPI did not start.
        error: why it did not, or empty.
        output: what the library printed.
    """

    library: str = ""
    family: str = ""
    version: str = ""
    size: int | None = None
    error: str = ""
    output: str = ""

    @property
    def name(self) -> str:
        """Family and version, or what the library says where they are not known."""
        return f"{self.family} {self.version}".strip() if self.family else self.library[:80]


@dataclass(frozen=True, slots=True)
class Probe:
    """Whether MPI can send GPU memory.

    Args:
        state: `not asked`, `works`, `fails` or `impossible`.
        detail: what was seen, or why it could not be tried.
    """

    state: str = "not asked"
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that findings follow from.

    Args:
        processes: in order of rank; only the one that asked where MPI does not join them.
        nodes: number of the node of each, counted from 0; processes of a node share memory.
        world: what MPI is here.
        probe: whether MPI can send GPU memory.
    """

    processes: tuple[Process, ...]
    nodes: tuple[int, ...]
    world: World
    probe: Probe = Probe()

    @property
    def first(self) -> Process:
        return self.processes[0]

    @property
    def num_started(self) -> int:
        """Processes that the launcher says it started; 1 outside a job."""
        return self.first.place.size if self.first.place else 1

    @property
    def is_whole(self) -> bool:
        """Whether the job that MPI sees is the one that was started."""
        return self.world.size is not None and self.world.size == self.num_started == len(self.processes)

    def by_node(self) -> dict[int, list[int]]:
        """Return the ranks of every node."""
        ranks: dict[int, list[int]] = {}
        for rank, node in enumerate(self.nodes):
            ranks.setdefault(node, []).append(rank)
        return ranks


def find_process(environ: Mapping[str, str] = os.environ) -> Process:
    """Return what this process sees. Call it before MPI is started: it runs launchers and perhaps nvidia-smi."""
    place = find_place(environ)
    found = tuple((name, environ[name]) for name in VARIABLES if name in environ)
    return Process(
        os.uname().nodename,
        place,
        find_cpus(),
        find_view(find_gpus(), place, environ),
        find_limits(),
        find_software(os.geteuid() == 0),
        found,
    )
