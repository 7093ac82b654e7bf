"""Findings about processors: ranks that share them, ranks that are bound too tightly or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from sparsecomm.launch.doctor.differences import by_value, name_ranks
from sparsecomm.launch.doctor.facts import Facts, Process
from sparsecomm.launch.doctor.finding import WARNING, Finding
from sparsecomm.launch.machine.cpus import format_list

_BIND: Final = (
    "srun --cpus-per-task=C --cpu-bind=cores, mpirun --map-by slot:pe=C --bind-to core (Open MPI), "
    "mpiexec -bind-to core:C (MPICH); C = cpus of a node / ranks on it; or let `sparsecomm launch` write it"
)


def check_cpus(facts: Facts) -> Iterator[Finding]:
    """Yield what is wrong with the processors of every node."""
    for ranks in facts.by_node().values():
        yield from _check_node(ranks, [facts.processes[rank] for rank in ranks])


def _check_node(ranks: Sequence[int], processes: Sequence[Process]) -> Iterator[Finding]:
    allowed = set().union(*(process.cpus.allowed for process in processes))
    crowded = list(_check_crowd(ranks, processes, len(allowed)))
    yield from crowded
    if not crowded:
        yield from _check_threads(processes, len(allowed))
    yield from _check_one_core(ranks, processes)
    yield from _check_numa(ranks, processes)
    yield from _check_quota(processes[0], len(allowed))


def _check_crowd(ranks: Sequence[int], processes: Sequence[Process], num_allowed: int) -> Iterator[Finding]:
    """Yield more ranks than processors, on the node or on the same ones of it."""
    host = processes[0].host
    if len(ranks) > num_allowed:
        text = f"{len(ranks)} ranks share {num_allowed} cpus on {host}"
        cure = (
            f"start at most {num_allowed} on this node; or let waiting ranks give way: "
            "MPIR_CVAR_CH4_PROGRESS_THROTTLE=1 (MPICH), --mca mpi_yield_when_idle 1 (Open MPI)"
        )
        yield Finding("more ranks than cpus", WARNING, text, cure)
        return
    for sharing, cpus in by_value([process.cpus.allowed for process in processes]):
        if len(sharing) > len(cpus):
            who = name_ranks([ranks[index] for index in sharing])
            text = f"{who} on {host} are all bound to cpus {format_list(cpus)} while others of the node are free"
            yield Finding("ranks bound to the same cpus", WARNING, text, f"give each its own: {_BIND}")


def _check_one_core(ranks: Sequence[int], processes: Sequence[Process]) -> Iterator[Finding]:
    """Yield ranks that may use one processor where the node has as many again for each."""
    single = [rank for rank, process in zip(ranks, processes, strict=True) if len(process.cpus.allowed) == 1]
    num_cpus = processes[0].cpus.num_cpus
    if single and num_cpus >= 2 * len(ranks):
        text = (
            f"{name_ranks(single)} on {processes[0].host} may use one cpu each, though the node has {num_cpus} for "
            f"{len(ranks)} rank{'s' if len(ranks) > 1 else ''}: planning and the product on CPUs get one thread"
        )
        yield Finding("ranks bound to one cpu", WARNING, text, f"give each more: {_BIND}")


def _check_threads(processes: Sequence[Process], num_allowed: int) -> Iterator[Finding]:
    """Yield thread pools that are larger together than the node; a rank alone may take it all."""
    first = processes[0]
    set_to = first.variable("OMP_NUM_THREADS").partition(",")[0]
    each = int(set_to) if set_to.isdecimal() else len(first.cpus.allowed)
    if len(processes) > 1 and each * len(processes) > num_allowed:
        why = f"OMP_NUM_THREADS is {set_to}" if set_to.isdecimal() else "OMP_NUM_THREADS is not set"
        text = f"{why}, so {len(processes)} ranks on {first.host} start {each} threads each for {num_allowed} cpus"
        cure = f"export OMP_NUM_THREADS={max(1, num_allowed // len(processes))} NUMBA_NUM_THREADS=$OMP_NUM_THREADS"
        yield Finding("more threads than cpus", WARNING, text, cure)


def _check_numa(ranks: Sequence[int], processes: Sequence[Process]) -> Iterator[Finding]:
    """Yield ranks whose memory may be far from where they run, though there are enough ranks to keep each near."""
    nodes = processes[0].cpus.nodes
    wide = [
        rank
        for rank, process in zip(ranks, processes, strict=True)
        if len(process.cpus.nodes_of(process.cpus.allowed)) > 1
    ]
    if wide and len(ranks) >= len(nodes):
        text = f"{name_ranks(wide)} on {processes[0].host} may run on several of its {len(nodes)} NUMA nodes"
        yield Finding("ranks across NUMA nodes", WARNING, text, f"bind each to cores of one: {_BIND}")


def _check_quota(first: Process, num_allowed: int) -> Iterator[Finding]:
    quota = first.cpus.quota
    if quota is not None and quota < num_allowed:
        text = f"{first.host} shows {num_allowed} cpus, but the control group grants the time of {quota:g}"
        cure = f"use {max(1, int(quota))} ranks times threads at most, or ask for more cpus (docker run --cpus)"
        yield Finding("fewer cpus than are shown", WARNING, text, cure)
