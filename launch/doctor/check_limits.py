"""Findings about limits: shared memory, open files, locked memory, address space, memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sparsecomm.launch.doctor.facts import Facts, Process
from sparsecomm.launch.doctor.finding import ERROR, WARNING, Finding
from sparsecomm.launch.doctor.sizes import MIB, size_text

# A rank that exchanges 8 MiB with its neighbours takes 5 MiB of /dev/shm with MPICH 5.0.2, and Open MPI 5.0.11 creates
# a segment of 16 MiB, of which it fills what it needs (measured, 1 to 4 ranks). Containers come with 64 MiB in all.
SHM_PER_RANK: Final = 16 * MIB
LEFT_BEHIND: Final = 64 * MIB
# A rank over TCP opens a few sockets a peer; Python, MPI and a GPU driver take some hundred files.
FILES_PER_PEER: Final = 2
FILES_OF_A_RANK: Final = 512
STACK: Final = MIB
# Python with numpy, scipy, numba and MPI, before there is a matrix.
MEMORY_PER_RANK: Final = 512 * MIB


def check_limits(facts: Facts) -> Iterator[Finding]:
    """Yield limits of every node that are too low, as its first rank has them."""
    for node, ranks in facts.by_node().items():
        yield from _check_process(facts.processes[ranks[0]], len(ranks), facts.num_started, node)


def _check_process(process: Process, num_on_node: int, num_ranks: int, node: int) -> Iterator[Finding]:
    where = process.host if node or num_ranks > num_on_node else "this machine"
    yield from _check_shm(process, num_on_node, where)
    yield from _check_files(process, num_ranks, where)
    yield from _check_locked(process, where)
    yield from _check_stack(process, where)
    yield from _check_address(process, where)
    yield from _check_memory(process, num_on_node, where)


def _check_shm(process: Process, num_on_node: int, where: str) -> Iterator[Finding]:
    shm = process.limits.shm
    if shm is None:
        text = f"{where} has no /dev/shm, through which ranks of a node exchange rows"
        yield Finding("no /dev/shm", ERROR, text, "mount it: mount -t tmpfs tmpfs /dev/shm")
        return
    if shm.free_bytes < SHM_PER_RANK * num_on_node:
        text = f"/dev/shm on {where} has {size_text(shm.free_bytes)} free of {size_text(shm.total_bytes)}"
        cure = (
            f"{size_text(SHM_PER_RANK)} a rank are needed: docker run --shm-size=1g or --ipc=host; "
            "mount -o remount,size=50% /dev/shm; remove what dead jobs left"
        )
        yield Finding("little /dev/shm", WARNING, text, cure)
    if shm.left_bytes >= LEFT_BEHIND:
        size = size_text(shm.left_bytes)
        text = (
            f"dead jobs of this user left {shm.num_left} segments, {size}, in /dev/shm on {where}: "
            "memory that nobody uses"
        )
        cure = (
            "when no job of yours runs there: "
            "find /dev/shm -user $(id -un) '(' -name 'mpich_shm_*' -o -name 'sm_segment.*' ')' -delete"
        )
        yield Finding("segments of dead jobs", WARNING, text, cure)


def _check_files(process: Process, num_ranks: int, where: str) -> Iterator[Finding]:
    limit, needed = process.limits.open_files, FILES_OF_A_RANK + FILES_PER_PEER * num_ranks
    if limit is not None and limit < needed:
        text = f"a process may open {limit} files on {where}; {num_ranks} ranks may need {needed}"
        yield Finding("few open files", WARNING, text, f"ulimit -n {max(needed, 4096)} before the launcher")


def _check_locked(process: Process, where: str) -> Iterator[Finding]:
    limit = process.limits.locked_bytes
    if process.limits.rdma and limit is not None:
        devices = ", ".join(process.limits.rdma)
        text = f"{devices} on {where} register memory, of which only {size_text(limit)} may be locked"
        cure = (
            "ulimit -l unlimited in /etc/security/limits.d and in the unit of slurmd (LimitMEMLOCK=infinity), "
            "PropagateResourceLimitsExcept=MEMLOCK in slurm.conf"
        )
        yield Finding("little locked memory", WARNING, text, cure)


def _check_stack(process: Process, where: str) -> Iterator[Finding]:
    limit = process.limits.stack_bytes
    if limit is not None and limit < STACK:
        text = f"the stack of a process on {where} is {size_text(limit)}; compiled partitioners overflow it"
        yield Finding("small stack", WARNING, text, "ulimit -s 8192 before the launcher")


def _check_address(process: Process, where: str) -> Iterator[Finding]:
    limit = process.limits.address_bytes
    if limit is not None:
        has_gpu = bool(process.gpus.seen)
        text = f"the address space of a process on {where} is limited to {size_text(limit)}" + (
            "; CUDA reserves more than all memory together and does not start" if has_gpu else ""
        )
        yield Finding("limited address space", ERROR if has_gpu else WARNING, text, "ulimit -v unlimited")


def _check_memory(process: Process, num_on_node: int, where: str) -> Iterator[Finding]:
    known = [size for size in (process.limits.memory_bytes, process.limits.ram_bytes) if size]
    if known and min(known) < MEMORY_PER_RANK * num_on_node:
        text = f"{where} grants {size_text(min(known))} of memory to {num_on_node} rank{'s' if num_on_node > 1 else ''}"
        cure = (
            f"{size_text(MEMORY_PER_RANK)} a rank are needed before there is a matrix: srun --mem, docker run --memory"
        )
        yield Finding("little memory", WARNING, text, cure)
