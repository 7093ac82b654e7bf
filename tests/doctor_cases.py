"""Invented machines, processes and jobs for `sparsecomm doctor`, healthy but for what is changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sparsecomm.launch.doctor.facts import Facts, Process, World
from sparsecomm.launch.doctor.gpu_view import GpuView
from sparsecomm.launch.doctor.limits import Limits, SharedMemory
from sparsecomm.launch.doctor.nccl import Nccl
from sparsecomm.launch.doctor.software import Software
from sparsecomm.launch.machine.cpus import Cpus, NumaNode
from sparsecomm.launch.machine.gpus import Gpu, Gpus
from sparsecomm.launch.mpiexec import Mpiexec
from sparsecomm.launch.world import Place

GIB = 1 << 30
HYDRA = "mpiexec (hydra) of MPICH or Intel MPI"
OPEN_MPI = "mpirun of Open MPI"
MPICH = World("MPICH Version: 5.0.2", "MPICH", "5.0.2")
OMPI = World("Open MPI v5.0.11, package: x", "Open MPI", "5.0.11")
EXEC_MPICH = Mpiexec("/env/bin/mpiexec", "MPICH", "5.0.2")
EXEC_OMPI = Mpiexec("/usr/bin/mpiexec", "Open MPI", "5.0.11")

LIMITS = Limits(4096, 8 << 20, 8 << 20, None, None, 256 * GIB, SharedMemory(128 * GIB, 127 * GIB))
PACKAGES = (("sparsecomm", "0.1.0"), ("numpy", "2.4.6"), ("scipy", "1.17.1"), ("mpi4py", "4.1.2"))
SOFTWARE = Software(
    "3.11.7",
    "/env/bin/python",
    PACKAGES,
    (("numpy", "2.0"), ("scipy", "1.13"), ("mpi4py", "4.1")),
    (("mpich", "5.0.2"),),
    (("cupy-cuda12x", "14.0"),),
    EXEC_MPICH,
    EXEC_MPICH,
    (Nccl("/env/libnccl.so.2", "2.27.3"),),
)


def machine(num_numa: int = 2, cpus_each: int = 8, allowed: Sequence[int] | None = None) -> Cpus:
    nodes = tuple(
        NumaNode(node, node, tuple(range(node * cpus_each, (node + 1) * cpus_each))) for node in range(num_numa)
    )
    return Cpus(nodes, tuple(range(num_numa * cpus_each) if allowed is None else allowed), None)


def uuid(index: int) -> str:
    return f"GPU-{index:08x}"


def gpus(count: int, peers: bool = True) -> Gpus:
    def one(index: int) -> Gpu:
        others = tuple(other for other in range(count) if other != index) if peers else ()
        return Gpu(index, uuid(index), "H100", f"0000:{index:02x}:00.0", 80 * GIB, index * 2 // count, others, others)

    return Gpus(tuple(map(one, range(count))), "nvidia-ml-py", "570.1", True, count)


def process(**changes: object) -> Process:
    return replace(
        Process("node0", None, machine(), GpuView(Gpus((), "no driver")), LIMITS, SOFTWARE),
        **changes,  # type: ignore[arg-type]
    )


def job(num_ranks: int, launcher: str = HYDRA, **changes: Sequence[object]) -> Facts:
    """A healthy job on one node, its ranks bound side by side; `changes` are given rank by rank."""
    share = 16 // num_ranks
    processes = [
        process(
            place=Place(launcher, num_ranks, rank, rank, num_ranks, "PMI_SIZE"),
            cpus=machine(allowed=range(rank * share, (rank + 1) * share)),
            **{name: values[rank] for name, values in changes.items()},
        )
        for rank in range(num_ranks)
    ]
    return Facts(tuple(processes), (0,) * num_ranks, replace(MPICH, size=num_ranks))


def gpu_job(num_ranks: int = 4, **changes: Sequence[object]) -> Facts:
    views = [GpuView(gpus(4), ("0", "1", "2", "3"), str(rank % 4)) for rank in range(num_ranks)]
    return job(num_ranks, gpus=views, **changes)


def pieces(launcher: str, size: int | None, world: World, error: str = "") -> Facts:
    """What one process of a job sees whose MPI does not join the others."""
    place = Place(launcher, 4, 0, 0, 4, "SIZE_VARIABLE")
    return Facts((process(place=place),), (0,), replace(world, size=size, error=error))


def alone(world: World = MPICH, **changes: object) -> Facts:
    return Facts((process(**changes),), (0,), replace(world, size=1))
