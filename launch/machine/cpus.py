"""Sockets, NUMA nodes and cores, from /sys."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sparsecomm.launch.machine.cgroup import find_cpu_quota

SYS: Final = Path("/sys")


@dataclass(frozen=True, slots=True)
class NumaNode:
    """A NUMA node.

    Args:
        number: as the system counts.
        socket: that it is in, or None where /sys does not say.
        cpus: hardware threads that are on line.
    """

    number: int
    socket: int | None
    cpus: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Cpus:
    """The processors of a machine and those that this process may use.

    Args:
        nodes: NUMA nodes, or one that stands for the machine where /sys does not say.
        allowed: hardware threads in the affinity of this process.
        quota: processors that the control group grants in time, or None where it does not limit.
    """

    nodes: tuple[NumaNode, ...]
    allowed: tuple[int, ...]
    quota: float | None

    @property
    def num_cpus(self) -> int:
        return sum(len(node.cpus) for node in self.nodes)

    def nodes_of(self, cpus: Iterable[int]) -> list[int]:
        """Return the numbers of the NUMA nodes that `cpus` are in."""
        wanted = set(cpus)
        return [node.number for node in self.nodes if wanted & set(node.cpus)]


def find_cpus(sys: Path = SYS) -> Cpus:
    """Return what /sys and the affinity of this process say."""
    allowed = tuple(sorted(os.sched_getaffinity(0)))
    folders = sorted((sys / "devices/system/node").glob("node[0-9]*"), key=lambda path: int(path.name[4:]))
    nodes = tuple(_numa_node(folder, sys) for folder in folders)
    nodes = tuple(node for node in nodes if node.cpus)  # memory without processors is a node too
    if not nodes:
        nodes = (NumaNode(0, None, parse_list(_read(sys / "devices/system/cpu/online")) or allowed),)
    return Cpus(nodes, allowed, find_cpu_quota(sys))


def parse_list(text: str) -> tuple[int, ...]:
    """Return the numbers of the kernel's short form: `0-2,8` is 0, 1, 2, 8."""
    numbers: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdecimal():
            numbers += range(int(first), int(last or first) + 1)
    return tuple(numbers)


def format_list(numbers: Iterable[int]) -> str:
    """Return the kernel's short form of `numbers`."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _numa_node(folder: Path, sys: Path) -> NumaNode:
    cpus = parse_list(_read(folder / "cpulist"))
    text = _read(sys / f"devices/system/cpu/cpu{cpus[0]}/topology/physical_package_id") if cpus else ""
    return NumaNode(int(folder.name[4:]), int(text) if text.strip().isdecimal() else None, cpus)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
