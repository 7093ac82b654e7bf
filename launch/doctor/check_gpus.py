"""Findings about GPUs: hidden, shared, far away, or without the software that uses them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from sparsecomm.launch.doctor.differences import by_value, name_ranks
from sparsecomm.launch.doctor.facts import Facts, Process
from sparsecomm.launch.doctor.finding import ERROR, NOTE, WARNING, Finding

_CUPY: Final = "pip install 'sparsecomm[cuda12]' (or cuda13, as the driver is)"


def check_gpus(facts: Facts) -> Iterator[Finding]:
    """Yield what is wrong with the GPUs of the job; nothing where there are none."""
    yield from _check_driver(facts.first)
    for ranks in facts.by_node().values():
        yield from _check_node(ranks, [facts.processes[rank] for rank in ranks])
    if any(process.gpus.driver.found for process in facts.processes):
        yield from _check_software(facts)
    yield from _check_probe(facts)


def _check_driver(first: Process) -> Iterator[Finding]:
    driver = first.gpus.driver
    if driver.num_devices and not driver.found:
        text = f"{first.host} has {driver.num_devices} GPUs, but this process sees none: {driver.source}"
        cure = (
            "ask the scheduler for them (srun --gpus-per-node=G), give them to the container (docker run --gpus all), "
            "or repair the driver until `nvidia-smi` lists them"
        )
        yield Finding("GPUs out of reach", WARNING, text, cure)
    elif driver.found and not first.gpus.seen:
        text = f"CUDA_VISIBLE_DEVICES={first.variable('CUDA_VISIBLE_DEVICES')!r} hides all {len(driver.found)} GPUs"
        yield Finding("GPUs hidden by the user", NOTE, text, "unset CUDA_VISIBLE_DEVICES to use them")
    if first.gpus.why_none:
        cure = "set SPARSECOMM_GPU_MAP to one visible GPU for each rank of a node, for example 0,1,2,3, or unset it"
        yield Finding("unusable GPU map", ERROR, first.gpus.why_none, cure)


def _check_node(ranks: Sequence[int], processes: Sequence[Process]) -> Iterator[Finding]:
    yield from _check_hidden(ranks, processes)
    yield from _check_shared(ranks, processes)
    yield from _check_near(ranks, processes)
    yield from _check_peers(processes)


def _check_hidden(ranks: Sequence[int], processes: Sequence[Process]) -> Iterator[Finding]:
    """Yield ranks that do not see the GPU of a peer: one cannot open the other's memory then (CUDA IPC)."""
    owned = {process.gpus.own_uuid for process in processes} - {None}
    blind = [
        rank for rank, process in zip(ranks, processes, strict=True) if process.gpus.seen and _misses(process, owned)
    ]
    if blind:
        first = processes[0]
        text = (
            f"{name_ranks(blind)} on {first.host} cannot see the GPUs of their peers, so that rows between them go "
            "through host memory instead of NVLink"
        )
        yield Finding("GPUs of peers are hidden", WARNING, text, _uncover(first))


def _misses(process: Process, owned: set[str | None]) -> bool:
    return not owned <= set(process.gpus.seen)


def _uncover(process: Process) -> str:
    """Return how to show all GPUs to every rank, by what the launcher was told."""
    for name, option in (
        ("SLURM_GPUS_PER_TASK", "--gpus-per-task"),
        ("SLURM_GPU_BIND", "--gpu-bind"),
    ):
        if process.variable(name):
            return (
                f"replace {option} by --gpus-per-node, or add --gres-flags=allow-task-sharing to srun; "
                "sparsecomm.launch.init() then gives each rank its own"
            )
    return (
        "show all GPUs of the node to every rank: no CUDA_VISIBLE_DEVICES of one GPU in a wrapper script, "
        "--gpus-per-node instead of --gpus-per-task; sparsecomm.launch.init() then gives each rank its own"
    )


def _check_shared(ranks: Sequence[int], processes: Sequence[Process]) -> Iterator[Finding]:
    """Yield ranks with one GPU: NCCL refuses them, and each gets a part of its speed."""
    shared = [
        f"{name_ranks([ranks[index] for index in sharing])} have {uuid}"
        for sharing, uuid in by_value([process.gpus.own_uuid for process in processes])
        if uuid is not None and len(sharing) > 1
    ]
    if shared:
        more = f", and {len(shared) - 4} more GPUs are shared" if len(shared) > 4 else ""
        text = f"on {processes[0].host} {', '.join(shared[:4])}{more}; NCCL refuses two ranks on one GPU"
        cure = "start one rank a GPU, or repair SPARSECOMM_GPU_MAP; in tests set NCCL_MULTI_RANK_GPU_ENABLE=1"
        yield Finding("ranks on one GPU", WARNING, text, cure)


def _check_near(ranks: Sequence[int], processes: Sequence[Process]) -> Iterator[Finding]:
    """Yield ranks that are bound to the cores of one NUMA node and use a GPU of another."""
    far = [rank for rank, process in zip(ranks, processes, strict=True) if _is_far(process)]
    if far:
        text = f"{name_ranks(far)} on {processes[0].host} run in another NUMA node than their GPUs"
        cure = (
            "set SPARSECOMM_GPU_MAP to the GPU next to each local rank's cores (`sparsecomm topology` shows them), "
            "or bind with --gpu-bind=none --cpu-bind=map_ldom:..."
        )
        yield Finding("GPU far from its cores", WARNING, text, cure)


def _is_far(process: Process) -> bool:
    homes = {gpu.uuid: gpu.numa for gpu in process.gpus.driver.found}
    home = homes.get(process.gpus.own_uuid or "")
    near = process.cpus.nodes_of(process.cpus.allowed)
    return home is not None and len(near) < len(process.cpus.nodes) and home not in near


def _check_peers(processes: Sequence[Process]) -> Iterator[Finding]:
    """Yield GPUs of one node that cannot read each other's memory, though every rank sees them."""
    driver = max((process.gpus.driver for process in processes), key=lambda one: len(one.found))
    apart = [
        f"{gpu.index}-{other.index}"
        for gpu in driver.found
        for other in driver.found
        if gpu.index < other.index and other.index not in gpu.peers
    ]
    if driver.linked and apart:
        text = f"on {processes[0].host} these GPUs cannot read each other's memory: {', '.join(apart[:12])}" + (
            f" and {len(apart) - 12} more pairs" if len(apart) > 12 else ""
        )
        cure = (
            "rows between them go through host memory; on PCIe switch off ACS and the IOMMU for peer access, in a "
            "virtual machine ask for GPUs with peer access"
        )
        yield Finding("GPUs without peer access", NOTE, text, cure)


def _check_software(facts: Facts) -> Iterator[Finding]:
    software = facts.first.software
    if not software.cupy_wheels:
        yield Finding("no CuPy", WARNING, "there are GPUs, but CuPy, which uses them, is not installed", _CUPY)
    elif len(software.cupy_wheels) > 1:
        names = [name for name, _ in software.cupy_wheels]
        text = f"{' and '.join(names)} are in one environment and overwrite each other's files"
        cure = f"pip uninstall {' '.join(names)}, then install one again"
        yield Finding("two CuPy wheels", ERROR, text, cure)
    if not software.nccl:
        cure = "pip install nvidia-nccl-cu12 (or -cu13), or load the site's NCCL module"
        yield Finding("no NCCL", WARNING, "there are GPUs, but libnccl.so.2 is not found", cure)
    elif not software.nccl[0].version:
        text = f"{software.nccl[0].path} is there, but cannot be loaded"
        yield Finding("NCCL does not load", WARNING, text, "reinstall it; `ldd` on the file names what is missing")


def _check_probe(facts: Facts) -> Iterator[Finding]:
    if facts.probe.state == "fails":
        text = f"this MPI cannot send GPU memory: {facts.probe.detail}"
        cure = "none is needed: rows are staged through pinned host memory; an MPI built with CUDA saves that copy"
        yield Finding("MPI is not GPU-aware", NOTE, text, cure)
    elif facts.probe.state == "impossible":
        text = f"whether MPI can send GPU memory could not be tried: {facts.probe.detail}"
        yield Finding("GPU-aware MPI not tried", NOTE, text, "try `sparsecomm doctor --probe-gpu-mpi` on a GPU node")
