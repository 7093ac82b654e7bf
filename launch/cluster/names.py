"""What a cluster consists of and what its parts are called, before any of it exists."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Final

from sparsecomm.errors import InputError

PREFIX: Final = "sparsecomm"
SUBNET: Final = "10.77.0.0/24"
HEAD_ADDRESS: Final = "10.77.0.1"
BRIDGE: Final = "br0"
LINK: Final = "eth0"

_FIRST_ADDRESS: Final = 10
MAX_NODES: Final = 200
MAX_RANKS_PER_NODE: Final = 256
_UNITS: Final = {"kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
_MIN_BPS, _MAX_BPS = 10**6, 10**11


@dataclass(frozen=True, slots=True)
class Node:
    """One network namespace.

    Args:
        name: its host name, for example `node0`.
        namespace: as `ip netns` shows it.
        address: inside the namespace, on `device`.
        device: its end of the link to the bridge; of the head, the bridge itself.
        port: the bridge's end of that link, inside the head; empty for the head.
        num_ranks: how many ranks a job has on it.
    """

    name: str
    namespace: str
    address: str
    device: str
    port: str
    num_ranks: int


@dataclass(frozen=True, slots=True)
class Cluster:
    """What was asked for.

    Args:
        name: tells clusters of one machine apart.
        num_ranks_of: ranks of each node.
        bandwidth_bps: bits per second of each link, in each direction.
        slurm: whether Slurm runs on it.

    Example:
        >>> cluster = Cluster("demo", (3, 1), parse_bandwidth("1gbit"), slurm=False)
        >>> cluster.num_ranks, [node.namespace for node in cluster.all_nodes]
        (4, ['sparsecomm-demo-head', 'sparsecomm-demo-node0', 'sparsecomm-demo-node1'])
    """

    name: str
    num_ranks_of: tuple[int, ...]
    bandwidth_bps: int
    slurm: bool

    def __post_init__(self) -> None:
        check_name(self.name)
        if not 1 <= len(self.num_ranks_of) <= MAX_NODES:
            raise InputError(f"{len(self.num_ranks_of)} nodes; give 1 to {MAX_NODES}")
        for num_ranks in self.num_ranks_of:
            if not 1 <= num_ranks <= MAX_RANKS_PER_NODE:
                raise InputError(f"a node of {num_ranks} ranks; give 1 to {MAX_RANKS_PER_NODE} to each")

    @property
    def num_ranks(self) -> int:
        return sum(self.num_ranks_of)

    @property
    def burst_bytes(self) -> int:
        """What may pass a link at once after a pause: the bytes of 4 ms, and two packets at least."""
        return max(self.bandwidth_bps // 8 // 250, 3200)

    @property
    def head(self) -> Node:
        """The namespace with the bridge, where launchers and the controller of Slurm run; it has no ranks."""
        return Node("head", self._namespace("head"), HEAD_ADDRESS, BRIDGE, "", 0)

    @property
    def nodes(self) -> tuple[Node, ...]:
        return tuple(self._node(index, num_ranks) for index, num_ranks in enumerate(self.num_ranks_of))

    @property
    def all_nodes(self) -> tuple[Node, ...]:
        return (self.head, *self.nodes)

    def _node(self, index: int, num_ranks: int) -> Node:
        name = f"node{index}"
        address = f"10.77.0.{_FIRST_ADDRESS + index}"
        return Node(name, self._namespace(name), address, LINK, f"port{index}", num_ranks)

    def _namespace(self, node: str) -> str:
        return f"{PREFIX}-{self.name}-{node}"

    def __str__(self) -> str:
        ranks = ",".join(str(num_ranks) for num_ranks in self.num_ranks_of)
        slurm = " with Slurm" if self.slurm else ""
        return f"cluster {self.name!r}: nodes of {ranks} ranks, links of {show_bandwidth(self.bandwidth_bps)}{slurm}"

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` makes the same request of."""
        return asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Cluster:
        """Make the request that `to_dict` described."""
        return Cluster(
            str(data["name"]),
            tuple(int(one) for one in data["num_ranks_of"]),
            int(data["bandwidth_bps"]),
            bool(data["slurm"]),
        )


def check_name(name: str) -> None:
    """Refuse a name of a cluster that cannot be part of the name of a namespace and of a folder.

    Raises:
        InputError: with what is allowed.
    """
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,23}", name):
        raise InputError(f"cluster name {name!r}; give at most 24 of a-z, 0-9 and -, the first a letter")


def parse_nodes(nodes: str, ranks_per_node: int | None) -> tuple[int, ...]:
    """Return the ranks of each node.

    Args:
        nodes: how many (`4`), or the ranks of each (`3,3,1`).
        ranks_per_node: of all nodes, where `nodes` is a number; 2 where None.

    Raises:
        InputError: these are no nodes.
    """
    words = nodes.split(",")
    if not all(re.fullmatch(r"[0-9]{1,6}", word) for word in words):
        raise InputError(f"nodes {nodes!r}; give their number (4), or the ranks of each (3,3,1)")
    numbers = [int(word) for word in words]
    if len(numbers) == 1:
        if not 1 <= numbers[0] <= MAX_NODES:
            raise InputError(f"{numbers[0]} nodes; give 1 to {MAX_NODES}")
        return (2 if ranks_per_node is None else ranks_per_node,) * numbers[0]
    if ranks_per_node is not None:
        raise InputError(f"nodes {nodes} says how many ranks each has; drop --ranks-per-node")
    return tuple(numbers)


def parse_bandwidth(text: str) -> int:
    """Return bits per second of, for example, `1gbit`, `250mbit` or `2.5gbit`.

    Raises:
        InputError: it is no bandwidth, or one that a link here cannot have.
    """
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(kbit|mbit|gbit)", text.lower())
    bps = round(float(found[1]) * _UNITS[found[2]]) if found else 0
    if not _MIN_BPS <= bps <= _MAX_BPS:
        raise InputError(f"bandwidth {text!r}; give 1mbit to 100gbit, for example 250mbit or 1gbit")
    return bps


def show_bandwidth(bps: int) -> str:
    """Return bits per second as `parse_bandwidth` reads them."""
    unit = next((unit for unit in ("gbit", "mbit") if bps >= _UNITS[unit]), "kbit")
    return f"{bps / _UNITS[unit]:g}{unit}"
