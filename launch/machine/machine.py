"""A machine as a tree: sockets, NUMA nodes, GPUs and the NVLink islands they form."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sparsecomm.launch.machine.cpus import Cpus, NumaNode, find_cpus, format_list
from sparsecomm.launch.machine.gpus import Gpu, Gpus, find_gpus

if TYPE_CHECKING:
    from rich.tree import Tree


@dataclass(frozen=True, slots=True)
class Machine:
    """One node, as the process that asked sees it.

    Args:
        host: name of the node.
        cpus: sockets, NUMA nodes, hardware threads.
        gpus: GPUs and their links.
    """

    host: str
    cpus: Cpus
    gpus: Gpus

    def to_json(self) -> dict[str, Any]:
        """Return it for machines."""
        nodes = [{"number": n.number, "socket": n.socket, "cpus": format_list(n.cpus)} for n in self.cpus.nodes]
        return {
            "host": self.host,
            "numa_nodes": nodes,
            "allowed_cpus": format_list(self.cpus.allowed),
            "cpu_quota": self.cpus.quota,
            "gpus": [asdict(gpu) for gpu in self.gpus.found],
            "gpu_source": self.gpus.source,
            "nvlink_islands": self.gpus.islands() if self.gpus.linked else None,
        }

    def tree(self) -> Tree:
        """Lay out sockets, NUMA nodes and GPUs."""
        from rich.tree import Tree

        root = Tree(f"{self.host}: {_cores(self.cpus)}")
        for socket in sorted({_socket(node) for node in self.cpus.nodes}):
            branch = root.add(f"socket {socket}") if socket >= 0 else root
            for node in self.cpus.nodes:
                if socket == _socket(node):
                    self._add_node(branch, node)
        self._add_links(root)
        return root

    def show(self) -> None:
        """Print the tree."""
        from rich.console import Console

        print("\nthe machine that this was asked on")
        Console(width=200, highlight=False, markup=False).print(self.tree())

    def _add_node(self, branch: Tree, node: NumaNode) -> None:
        leaf = branch.add(f"NUMA node {node.number}: cpus {format_list(node.cpus)}")
        for gpu in self.gpus.found:
            if gpu.numa == node.number:
                leaf.add(_gpu(gpu))

    def _add_links(self, root: Tree) -> None:
        """Add the GPUs that no NUMA node has, and the islands."""
        if not self.gpus.found:
            root.add(f"no GPU ({self.gpus.source})")
        known = {node.number for node in self.cpus.nodes}
        for gpu in self.gpus.found:
            if gpu.numa not in known:
                root.add(_gpu(gpu))
        for number, island in enumerate(self.gpus.islands() if self.gpus.linked else []):
            alone = f"GPU {island[0]} has no NVLink to another"
            root.add(f"NVLink island {number}: GPUs {format_list(island)}" if len(island) > 1 else alone)


def find_machine() -> Machine:
    """Return this node. Call it before MPI is started: it may run nvidia-smi."""
    return Machine(os.uname().nodename, find_cpus(), find_gpus())


def _socket(node: NumaNode) -> int:
    return -1 if node.socket is None else node.socket


def _gpu(gpu: Gpu) -> str:
    return f"GPU {gpu.index}: {gpu.name}, {gpu.memory_bytes / (1 << 30):.0f} GiB, {gpu.bus}"


def _cores(cpus: Cpus) -> str:
    quota = f", for {cpus.quota:g} cpus' worth of time" if cpus.quota is not None else ""
    return f"{cpus.num_cpus} cpus, of which this process may use {format_list(cpus.allowed)}{quota}"
