"""Topologies by name: plain ones, and machines with published figures.

Bandwidths are bytes per second of one port in one direction, as published; what is not published says "assumed".
All latencies, and the time to start a kernel, are assumed: one round figure for each class of link, the same for every
machine, so that they never decide between two machines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from sparsecomm.errors import InputError
from sparsecomm.topology import MAX_RANKS, Device, Level, Topology, make_tree
from sparsecomm.topology_toml import read_toml

_INSIDE_S: Final = 2e-6  # assumed: between GPUs that are linked directly
_ACROSS_S: Final = 3e-6  # assumed: between the sockets or packages of a node
_NETWORK_S: Final = 5e-6  # assumed: between nodes
_LAUNCH_S: Final = 5e-6  # assumed: starting a kernel


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine of equal nodes.

    Args:
        levels: inner to outer; the last two are the node and the network.
        sizes: ranks in a group of every level but the network, inner to outer; one rank is one GPU.
        device: that GPU.
        links: of a node, (GPU, GPU, bytes per second): direct links besides the ports of their level.
    """

    levels: tuple[Level, ...]
    sizes: tuple[int, ...]
    device: Device
    links: tuple[tuple[int, int, float], ...] = ()


# Summit: 2 sockets of 3 V100. NVLink 2 x 25 GB/s between any two GPUs of a socket (a GPU leaves by two ports, one to
# each of the others), X-Bus 64 GB/s both ways, two EDR InfiniBand rails of 100 Gb/s.
# Source: OLCF Summit User Guide; wikichip "POWER9"; chart of github.com/merthidayetoglu/Bisection_Bandwidth_Tester.
# Long messages straight out of GPU memory reached 18 to 26 GB/s a node of 50 both ways, by that chart: 5.5 a port in
# one direction, so that staging through the host wins. HBM2 900 GB/s (NVIDIA, "Tesla V100 GPU Architecture"); NVLink to
# the host 2 x 25 GB/s (Summit User Guide).
_SUMMIT: Final = Machine(
    levels=(
        Level("socket", _INSIDE_S, 50e9, ports=2, load_store=True),
        Level("node", _ACROSS_S, 32e9, ports=1, load_store=True),
        Level("network", _NETWORK_S, 12.5e9, ports=2, direct_Bps=5.5e9),
    ),
    sizes=(3, 6),
    device=Device("V100", 900e9, _LAUNCH_S, 50e9),
)

# Frontier: 4 MI250X packages of 2 dies (GCDs); one die is one GPU and one rank. Inside a package 200 GB/s; between
# packages 50 to 100 GB/s "based on the number of Infinity Fabric connections", which are of 50 GB/s each; four
# Slingshot NICs of 200 Gb/s (25 GB/s) a node, 100 GB/s in all.
# Source: OLCF Frontier User Guide, "Frontier Compute Nodes" and "System Interconnect"; link of 50 GB/s: ROCm
# documentation, "MI250 microarchitecture". Two links out of a package at once is assumed. Memory 3.2 TB/s a package,
# and 36 GB/s from each die to the host, in one direction (Frontier User Guide).
_FRONTIER: Final = Machine(
    levels=(
        Level("package", _INSIDE_S, 200e9, ports=1, load_store=True),
        Level("node", _ACROSS_S, 50e9, ports=2, load_store=True),
        Level("network", _NETWORK_S, 25e9, ports=4),
    ),
    sizes=(2, 8),
    device=Device("MI250X die", 1.6e12, _LAUNCH_S, 36e9),
)

# Perlmutter, GPU nodes: 1 EPYC and 4 A100, four third-generation NVLinks between each pair, 25 GB/s per link and
# direction: 100 GB/s by each of three ports. Four Slingshot 11 NICs a node of 200 Gb/s.
# Source: NERSC documentation, "Perlmutter Architecture" (docs.nersc.gov/systems/perlmutter/architecture). HBM2 of the
# A100 of 40 GB 1,555 GB/s (the same page); PCIe 4.0 x16 to the host, 31.5 GB/s by its standard.
_PERLMUTTER: Final = Machine(
    levels=(
        Level("node", _INSIDE_S, 100e9, ports=3, load_store=True),
        Level("network", _NETWORK_S, 25e9, ports=4),
    ),
    sizes=(4,),
    device=Device("A100", 1.555e12, _LAUNCH_S, 31.5e9),
)

# DGX H100: 8 H100 behind four NVSwitches, so that any pair has all 18 NVLinks of a GPU: 900 GB/s both ways, 450 in
# one. Eight single-port ConnectX-7 of 400 Gb/s for the compute network.
# Source: NVIDIA DGX H100 User Guide, "Network Modules"; NVIDIA, "Introducing NVIDIA HGX H100". HBM3 3.35 TB/s (NVIDIA
# H100 data sheet, SXM); PCIe 5.0 x16 to the host, 63 GB/s by its standard.
_DGX_H100: Final = Machine(
    levels=(
        Level("node", _INSIDE_S, 450e9, ports=1, load_store=True),
        Level("network", _NETWORK_S, 50e9, ports=8),
    ),
    sizes=(8,),
    device=Device("H100", 3.35e12, _LAUNCH_S, 63e9),
)

# DGX-1 with V100: six NVLinks a GPU, 25 GB/s each in one direction, to four of the seven others, two of them double (a
# hybrid cube mesh); all others, and the host, by PCIe 3.0 x16, 15.75 GB/s. Four single-port ConnectX-4 of 100 Gb/s.
# Source: NVIDIA, "NVIDIA DGX-1 With Tesla V100 System Architecture"; links as `nvidia-smi topo -m` prints them, some of
# them in github.com/NVIDIA/nccl/issues/671.
_NVLINK_Bps: Final = 25e9
_CUBE_MESH: Final = (
    *((0, 1, 1), (0, 2, 1), (0, 3, 2), (0, 4, 2), (1, 2, 2), (1, 3, 1), (1, 5, 2), (2, 3, 2)),
    *((2, 6, 1), (3, 7, 1), (4, 5, 1), (4, 6, 1), (4, 7, 2), (5, 6, 2), (5, 7, 1), (6, 7, 2)),
)
_DGX_1: Final = Machine(
    levels=(
        Level("node", _INSIDE_S, 15.75e9, ports=1, load_store=True),
        Level("network", _NETWORK_S, 12.5e9, ports=4),
    ),
    sizes=(8,),
    device=Device("V100", 900e9, _LAUNCH_S, 15.75e9),
    links=tuple((one, other, count * _NVLINK_Bps) for one, other, count in _CUBE_MESH),
)

MACHINES: Final = {
    "summit": _SUMMIT,
    "frontier": _FRONTIER,
    "perlmutter": _PERLMUTTER,
    "dgx-h100": _DGX_H100,
    "dgx-1": _DGX_1,
}

_FORMS: Final = ("uniform:NxG", "nodes:G1,G2,...", *(f"{name}:N" for name in MACHINES))


def parse_topology(spec: str) -> Topology:
    """Make the topology that a command line names; see `Topology.parse`.

    Raises:
        InputError: `spec` names none or has no ranks.
    """
    kind, _, argument = spec.partition(":")
    if kind in MACHINES:
        return replace(_machine(kind, argument, spec), name=spec)
    if kind in _PLAIN:
        return replace(_PLAIN[kind](argument, spec), name=spec)
    if spec.endswith(".toml"):
        return read_toml(Path(spec))
    raise InputError(f"unknown topology {spec!r}; give one of {', '.join(_FORMS)} or a .toml file")


def _number(text: str, spec: str, form: str, least: int = 1) -> int:
    try:
        value = int(text)
    except ValueError:
        raise InputError(f"topology {spec!r}: {text!r} is not a whole number; the form is {form}") from None
    if not least <= value <= MAX_RANKS:
        raise InputError(f"topology {spec!r}: {value} is not between {least} and {MAX_RANKS}; the form is {form}")
    return value


def _check_size(num_ranks: int, spec: str) -> None:
    if num_ranks > MAX_RANKS:
        raise InputError(f"topology {spec!r} has {num_ranks} ranks; at most {MAX_RANKS} are supported")


def _machine(kind: str, argument: str, spec: str) -> Topology:
    machine = MACHINES[kind]
    num_ranks = machine.sizes[-1] * _number(argument, spec, f"{kind}:N")
    _check_size(num_ranks, spec)
    ranks = np.arange(num_ranks)
    topology = make_tree(spec, machine.levels, [ranks // size for size in machine.sizes], machine.device)
    nodes = np.arange(topology.num_nodes if machine.links else 0)[:, None, None] * machine.sizes[-1]
    ends = np.array([link[:2] for link in machine.links], dtype=np.int64).reshape(-1, 2)
    speeds = np.array([link[2] for link in machine.links])
    return replace(topology, links=(nodes + ends).reshape(-1, 2), link_Bps=np.tile(speeds, nodes.size))


def _uniform(argument: str, spec: str) -> Topology:
    nodes, _, per_node = argument.partition("x")
    n, g = (_number(text, spec, "uniform:NxG") for text in (nodes, per_node))
    _check_size(n * g, spec)
    return Topology.from_nodes(np.arange(n * g) // g)


def _nodes(argument: str, spec: str) -> Topology:
    sizes = [_number(text, spec, "nodes:G1,G2,...") for text in argument.split(",")]
    _check_size(sum(sizes), spec)
    return Topology.from_nodes(np.repeat(np.arange(len(sizes)), sizes))


_PLAIN: Final[dict[str, Callable[[str, str], Topology]]] = {"uniform": _uniform, "nodes": _nodes}
