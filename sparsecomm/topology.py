"""The machine a plan is made for: a tree of ranks and what a copy costs at each of its levels."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import numpy.typing as npt

from sparsecomm.errors import InputError
from sparsecomm.typing import IntGlobal, IntRank, frozen

if TYPE_CHECKING:
    import networkx as nx

DETECTED: Final = "detected"  # a topology that was found in a job
MAX_RANKS: Final = 1 << 24


@dataclass(frozen=True, slots=True)
class Level:
    """One level of the tree: the cost of a copy between two children of the same group.

    Args:
        name: `socket`, `node`, `network`, ...
        latency_s: seconds from posting a message to its first byte.
        bandwidth_Bps: bytes per second of one port, in one direction.
        ports: ports through which one child group (a rank, a socket, a node) leaves at this level.
        load_store: whether ranks can read each other's memory in place at this level.
        direct_Bps: what one port reaches when it reads and writes GPU memory itself, where that is less than
            `bandwidth_Bps`; 0 where it is not.

    Raises:
        InputError: a number is not one, or out of range.
    """

    name: str
    latency_s: float
    bandwidth_Bps: float
    ports: int = 1
    load_store: bool = False
    direct_Bps: float = 0.0

    def __post_init__(self) -> None:
        for name, least in (("latency_s", 0.0), ("bandwidth_Bps", 1.0), ("direct_Bps", 0.0)):
            check_number(f"level {self.name!r}", name, getattr(self, name), least)
        if not isinstance(self.ports, int) or self.ports < 1:
            raise InputError(f"level {self.name!r}: ports is {self.ports!r}; give a whole number of at least 1")


def check_number(owner: str, name: str, value: object, least: float) -> None:
    """Refuse what is no finite number of at least `least`.

    Raises:
        InputError: naming the owner and the entry.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < math.inf:
        raise InputError(f"{owner}: {name} is {value!r}; give a number of at least {least:g}")


@dataclass(frozen=True, slots=True)
class Device:
    """What holds the rows of one rank and multiplies them.

    Args:
        name: `core`, `V100`, ...
        memory_Bps: bytes per second at which one rank reads and writes its memory.
        launch_s: seconds to start a kernel; 0 where none is started.
        host_Bps: bytes per second between the device and the memory of its host, in one direction; 0 where rows are in
            the host's memory already.

    Raises:
        InputError: a number is not one, or out of range.
    """

    name: str
    memory_Bps: float
    launch_s: float = 0.0
    host_Bps: float = 0.0

    def __post_init__(self) -> None:
        for name, least in (("memory_Bps", 1.0), ("launch_s", 0.0), ("host_Bps", 0.0)):
            check_number(f"device {self.name!r}", name, getattr(self, name), least)


CORE: Final = Device("core", 10e9)  # one core of a current server streaming from DRAM; assumed until calibrated

# One round figure for each class of link, assumed; `sparsecomm calibrate` is to replace them by measurements.
_NODE = Level("node", 2e-6, 50e9, ports=1, load_store=True)
_NETWORK = Level("network", 5e-6, 12.5e9, ports=1)


@dataclass(frozen=True, slots=True, eq=False)
class Topology:
    """A tree of ranks.

    Args:
        name: how the user asked for it, for example `summit:8`.
        levels: inner to outer; a copy belongs to the innermost level whose group holds both its ends.
        groups: (num_levels, num_ranks) int32; `groups[l, p]` is the group of level l that rank p is in. Groups of
            a level lie inside groups of the next, and the outermost level is one group. They may have any sizes.
        device: of every rank.
        links: (num_links, 2) int32, pairs of ranks with a direct link besides the ports of their level, as between
            GPUs of a node that is not all-to-all.
        link_Bps: (num_links,) float64, bytes per second of each in one direction.

    Example:
        >>> topology = Topology.parse("nodes:3,1")
        >>> topology.num_ranks, topology.num_nodes, [level.name for level in topology.levels]
        (4, 2, ['node', 'network'])
        >>> topology.level_of(np.array([0, 0]), np.array([2, 3])).tolist()
        [0, 1]
    """

    name: str
    levels: tuple[Level, ...]
    groups: IntRank
    device: Device = CORE
    links: IntRank = field(default_factory=lambda: np.empty((0, 2), dtype=np.int32))
    link_Bps: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    _lane: IntRank = field(init=False, repr=False)
    _members: IntRank = field(init=False, repr=False)
    _start: tuple[IntRank, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        groups = np.asarray(self.groups)
        _check_tree(self.name, self.levels, groups)
        links, link_Bps = np.asarray(self.links), np.asarray(self.link_Bps, dtype=np.float64)
        _check_links(self.name, links, link_Bps, groups.shape[1])
        groups = np.stack([np.unique(row, return_inverse=True)[1].astype(np.int32) for row in groups])
        members = np.argsort(groups, axis=1, kind="stable").astype(np.int32)
        sizes = [np.bincount(row) for row in groups]
        start = tuple(np.concatenate([[0], np.cumsum(size)]).astype(np.int32) for size in sizes)
        lane = np.empty_like(groups)
        for level, row in enumerate(groups):
            lane[level, members[level]] = np.arange(row.size) - start[level][row[members[level]]]
        object.__setattr__(self, "groups", frozen(groups))
        object.__setattr__(self, "links", frozen(links.astype(np.int32)))
        object.__setattr__(self, "link_Bps", frozen(link_Bps))
        object.__setattr__(self, "_members", frozen(members))
        object.__setattr__(self, "_lane", frozen(lane))
        object.__setattr__(self, "_start", start)

    @property
    def num_ranks(self) -> int:
        return int(self.groups.shape[1])

    @property
    def num_levels(self) -> int:
        return len(self.levels)

    @property
    def num_nodes(self) -> int:
        return self.num_groups(self.num_levels - 2)

    @property
    def num_load_store(self) -> int:
        """How many levels, the innermost, have ranks that can read each other's memory in place."""
        outer = (number for number, level in enumerate(self.levels) if not level.load_store)
        return next(outer, self.num_levels)

    @property
    def level_names(self) -> list[str]:
        return [level.name for level in self.levels]

    @property
    def rank_to_node(self) -> IntRank:
        """(num_ranks,) int32: the group just below the network that each rank is in."""
        return self.group_of(self.num_levels - 2)

    def num_groups(self, level: int) -> int:
        """Return how many groups `level` has; level -1 stands for the single ranks."""
        return self.num_ranks if level < 0 else self._start[level].size - 1

    def group_of(self, level: int) -> IntRank:
        """Return `rank_to_group`, (num_ranks,) int32, of `level`; level -1 stands for the single ranks."""
        return np.arange(self.num_ranks, dtype=np.int32) if level < 0 else self.groups[level]

    def lane_of(self, level: int) -> IntRank:
        """Return `rank_to_lane`, (num_ranks,) int32: the number of each rank in its group of `level`."""
        return cast(IntRank, self._lane[level])

    def first_of_group(self, level: int) -> IntRank:
        """Return `group_to_rank`, the first rank of every group of `level`."""
        return self.group_of(-1) if level < 0 else self._members[level][self._start[level][:-1]]

    def level_of(self, src: IntRank, dst: IntRank) -> IntRank:
        """Return the level of copies src[i] -> dst[i], (n,) int32: the innermost group with both ends."""
        level = np.full(np.broadcast(src, dst).shape, self.num_levels - 1, dtype=np.int32)
        for inner in range(self.num_levels - 2, -1, -1):
            group = self.groups[inner]
            level[group[src] == group[dst]] = inner
        return level

    def entry(self, level: int, holder: IntRank, rank: IntRank) -> IntRank:
        """Return the rank through which rows of `holder[i]` enter the group of `level` that `rank[i]` is in.

        The lane rule: a row enters at the rank numbered (index of its holder in the holder's own group) modulo
        the size of the entered group.

        Source: routing of SparseComm and HiCCL (entry rank = receiving group * size + sender % size).
        """
        return rank if level < 0 else self.member(level, self.groups[level][rank], self._lane[level][holder])

    def member(self, level: int, group: IntGlobal | IntRank, lane: IntGlobal | IntRank) -> IntRank:
        """Return the rank numbered `lane[i]`, modulo its size, in `group[i]` of `level`."""
        start = self._start[level]
        first = start[group]
        if lane.max(initial=0) >= np.diff(start).min():  # in groups of equal size a lane of one is a lane of all
            lane = lane % (start[group + 1] - first)
        return cast(IntRank, self._members[level][first + lane])

    def __str__(self) -> str:
        ranks, nodes = (
            f"{n} {noun}{'s' * (n != 1)}" for n, noun in ((self.num_ranks, "rank"), (self.num_nodes, "node"))
        )
        return f"{self.name}: {ranks} on {nodes}, levels {' < '.join(self.level_names)}"

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` needs to make the same topology again."""
        links = {"links": self.link_list()} if len(self.links) else {}
        return {
            "name": self.name,
            "levels": [asdict(level) for level in self.levels],
            "groups": self.groups[:-1].tolist(),
            "device": asdict(self.device),
            **links,
        }

    def link_list(self) -> list[tuple[int, int, float]]:
        """Return (rank, rank, bytes per second) of every direct link."""
        return [
            (one, other, Bps) for (one, other), Bps in zip(self.links.tolist(), self.link_Bps.tolist(), strict=True)
        ]

    def with_links(self, links: Iterable[tuple[int, int, float]]) -> Topology:
        """Return this topology with direct links (rank, rank, bytes per second) instead of those it has.

        Raises:
            InputError: a link is not between two ranks of the topology, or is given twice.

        Example:
            >>> ring = Topology.parse("uniform:1x3").with_links([(0, 1, 25e9), (1, 2, 25e9)])
            >>> ring.links.tolist()
            [[0, 1], [1, 2]]
        """
        ranks = [tuple(link) for link in links]
        if any(len(link) != 3 for link in ranks):
            raise InputError(f"topology {self.name!r}: a link is [rank, rank, bytes per second]")
        ends = np.array([link[:2] for link in ranks]).reshape(-1, 2)
        return replace(self, links=ends, link_Bps=np.array([link[2] for link in ranks], dtype=np.float64))

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Topology:
        """Make the topology that `to_dict` described.

        Raises:
            InputError: `data` has not the form that `to_dict` gives.
        """
        try:
            levels = tuple(Level(**level) for level in data["levels"])
            inner = np.asarray(data["groups"], dtype=np.int64)
            device = Device(**data["device"]) if "device" in data else CORE
            return make_tree(str(data["name"]), levels, list(inner), device).with_links(data.get("links", ()))
        except (KeyError, OverflowError, TypeError, ValueError) as err:
            raise InputError(f"not the description of a topology: {err}") from err

    @staticmethod
    def from_nodes(rank_to_node: npt.ArrayLike, name: str = DETECTED) -> Topology:
        """Make a two-level topology from the node number of every rank."""
        return make_tree(name, (_NODE, _NETWORK), [np.asarray(rank_to_node)])

    @staticmethod
    def of(given: Topology | str) -> Topology:
        """Return a topology as it is, or that of a name; see `parse`.

        Raises:
            InputError: it is neither.
        """
        if not isinstance(given, Topology | str):
            raise InputError(
                f"a topology must be a Topology or a name, such as 'uniform:2x2', not {type(given).__name__} {given!r}"
            )
        return Topology.parse(given) if isinstance(given, str) else given

    @staticmethod
    def parse(spec: str) -> Topology:
        """Make the topology that a command line names.

        Args:
            spec: `uniform:NxG` (N nodes of G ranks), `nodes:3,3,1` (uneven), a machine that is known (`summit:N`,
                `frontier:N`, `perlmutter:N`, `dgx-h100:N`, `dgx-1:N`), or the path of a TOML file.

        Raises:
            InputError: `spec` is none of these or has no ranks.
        """
        from sparsecomm.presets import parse_topology

        return parse_topology(spec)

    def to_toml(self) -> str:
        """Return the text of a file that `parse` makes the same topology of.

        Example:
            >>> print(Topology.parse("nodes:2,1").to_toml().splitlines()[1])
            tree = [2, 1]
        """
        from sparsecomm.topology_toml import to_toml

        return to_toml(self)

    def to_networkx(self) -> nx.DiGraph[tuple[str, int]]:
        """Return the tree as a directed graph, from the outermost group down to the ranks.

        A node is `(level name, group)`, or `("rank", rank)`; groups carry what a copy inside them costs
        (`latency_s`, `bandwidth_Bps`, `ports`, `load_store`). Direct links are edges between ranks, both ways, with
        `bandwidth_Bps`.

        Example:
            >>> tree = Topology.parse("uniform:2x2").to_networkx()
            >>> sorted(tree.successors(("node", 1)))
            [('rank', 2), ('rank', 3)]
        """
        import networkx as nx

        tree: nx.DiGraph[tuple[str, int]] = nx.DiGraph(name=self.name)
        for number, level in enumerate(self.levels):
            cost = {name: value for name, value in asdict(level).items() if name != "name"}
            tree.add_nodes_from(((level.name, group) for group in range(self.num_groups(number))), **cost)
        names = ["rank", *self.level_names]
        for inner in range(-1, self.num_levels - 1):
            outer = self.group_of(inner + 1)[self.first_of_group(inner)].tolist()
            tree.add_edges_from(((names[inner + 2], up), (names[inner + 1], group)) for group, up in enumerate(outer))
        for one, other, Bps in self.link_list():
            for src, dst in ((one, other), (other, one)):
                tree.add_edge(("rank", src), ("rank", dst), bandwidth_Bps=Bps)
        return tree


def _check_tree(name: str, levels: tuple[Level, ...], groups: IntRank) -> None:
    if groups.ndim != 2 or groups.shape[0] != len(levels) or len(levels) < 2:
        raise InputError(f"topology {name!r}: groups must be (num_levels, num_ranks) with at least two levels")
    names = ["rank", *(level.name for level in levels)]
    if len(set(names)) < len(names):
        raise InputError(f"topology {name!r}: levels {names[1:]} need names of their own, other than 'rank'")
    if groups.shape[1] == 0:
        raise InputError(f"topology {name!r} has 0 ranks; give at least one node with at least one rank")
    if np.unique(groups[-1]).size != 1:
        raise InputError(f"topology {name!r}: the outermost level must be one group")
    for inner, outer in pairwise(groups):
        pairs = np.unique(np.stack([inner, outer]), axis=1).shape[1]
        if pairs != np.unique(inner).size:
            raise InputError(f"topology {name!r}: a group lies in two groups of the next level")


def _check_links(name: str, links: npt.NDArray[Any], link_Bps: npt.NDArray[np.float64], num_ranks: int) -> None:
    if links.ndim != 2 or links.shape[1] != 2 or (links.size and links.dtype.kind != "i"):
        raise InputError(f"topology {name!r}: links must be pairs of ranks, given as whole numbers")
    if link_Bps.shape != links.shape[:1] or not (np.isfinite(link_Bps) & (link_Bps >= 1)).all():
        raise InputError(f"topology {name!r}: every link needs its bytes per second, a number of at least 1")
    wrong = (links < 0).any(axis=1) | (links >= num_ranks).any(axis=1) | (links[:, 0] == links[:, 1])
    if wrong.any():
        one, other = links[int(np.argmax(wrong))].tolist()
        raise InputError(f"topology {name!r}: link {one} - {other} is not between two of its {num_ranks} ranks")
    pairs = np.sort(links.astype(np.int64), axis=1) @ [num_ranks, 1]
    if np.unique(pairs).size < pairs.size:
        raise InputError(f"topology {name!r}: a link is given twice; give one with the sum of their bytes per second")


def make_tree(
    name: str, levels: tuple[Level, ...], inner: list[np.ndarray[Any, Any]], device: Device = CORE
) -> Topology:
    """Make a topology from `rank_to_group` of every level but the outermost, inner to outer, however numbered."""
    if not inner:
        raise InputError(f"topology {name!r} has only the outermost level; give at least two")
    return Topology(name, levels, np.stack([*inner, np.zeros_like(inner[0])]), device)
