"""The machine a plan is made for: a tree of ranks and what a copy costs at each of its levels."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from sparsecomm.errors import InputError
from sparsecomm.typing import IntGlobal, IntRank, frozen

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

    Raises:
        InputError: a number is not one, or out of range.
    """

    name: str
    latency_s: float
    bandwidth_Bps: float
    ports: int = 1
    load_store: bool = False

    def __post_init__(self) -> None:
        for name, value, least in (("latency_s", self.latency_s, 0.0), ("bandwidth_Bps", self.bandwidth_Bps, 1.0)):
            if not isinstance(value, int | float) or not least <= value < math.inf:
                raise InputError(f"level {self.name!r}: {name} is {value!r}; give a number of at least {least:g}")
        if not isinstance(self.ports, int) or self.ports < 1:
            raise InputError(f"level {self.name!r}: ports is {self.ports!r}; give a whole number of at least 1")


# Bandwidths of Summit: REFERENCE "Topology numbers" (wikichip and the chart of the Bisection_Bandwidth_Tester):
# NVLink 50 GB/s a pair and direction, X-Bus 32, two EDR rails of 12.5. The others are one round figure for each
# class of link. All latencies are assumed; `sparsecomm calibrate` is to replace both by measurements.
_NODE = Level("node", 2e-6, 50e9, ports=1, load_store=True)
_NETWORK = Level("network", 5e-6, 12.5e9, ports=1)
_SUMMIT = (
    Level("socket", 2e-6, 50e9, ports=2, load_store=True),
    Level("node", 3e-6, 32e9, ports=1, load_store=True),
    Level("network", 5e-6, 12.5e9, ports=2),
)


@dataclass(frozen=True, slots=True, eq=False)
class Topology:
    """A tree of ranks.

    Args:
        name: how the user asked for it, for example `summit:8`.
        levels: inner to outer; a copy belongs to the innermost level whose group holds both its ends.
        groups: (num_levels, num_ranks) int32; `groups[l, p]` is the group of level l that rank p is in. Groups of
            a level lie inside groups of the next, and the outermost level is one group. They may have any sizes.

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
    _lane: IntRank = field(init=False, repr=False)
    _members: IntRank = field(init=False, repr=False)
    _start: tuple[IntRank, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        groups = np.asarray(self.groups)
        _check_tree(self.name, self.levels, groups)
        groups = np.stack([np.unique(row, return_inverse=True)[1].astype(np.int32) for row in groups])
        members = np.argsort(groups, axis=1, kind="stable").astype(np.int32)
        sizes = [np.bincount(row) for row in groups]
        start = tuple(np.concatenate([[0], np.cumsum(size)]).astype(np.int32) for size in sizes)
        lane = np.empty_like(groups)
        for level, row in enumerate(groups):
            lane[level, members[level]] = np.arange(row.size) - start[level][row[members[level]]]
        object.__setattr__(self, "groups", frozen(groups))
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
        size = start[group + 1] - start[group]
        return cast(IntRank, self._members[level][start[group] + lane % size])

    def __str__(self) -> str:
        return f"{self.name}: {self.num_ranks} ranks on {self.num_nodes} nodes, levels {' < '.join(self.level_names)}"

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` needs to make the same topology again."""
        return {
            "name": self.name,
            "levels": [asdict(level) for level in self.levels],
            "groups": self.groups[:-1].tolist(),
        }

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Topology:
        """Make the topology that `to_dict` described.

        Raises:
            InputError: `data` has not the form that `to_dict` gives.
        """
        try:
            levels = tuple(Level(**level) for level in data["levels"])
            inner = np.asarray(data["groups"], dtype=np.int64)
            return _tree(str(data["name"]), levels, list(inner))
        except (KeyError, OverflowError, TypeError, ValueError) as err:
            raise InputError(f"not the description of a topology: {err}") from err

    @staticmethod
    def from_nodes(rank_to_node: npt.ArrayLike, name: str = "detected") -> Topology:
        """Make a two-level topology from the node number of every rank."""
        return _tree(name, (_NODE, _NETWORK), [np.asarray(rank_to_node)])

    @staticmethod
    def parse(spec: str) -> Topology:
        """Make the topology that a command line names.

        Args:
            spec: `uniform:NxG` (N nodes of G ranks), `nodes:3,3,1` (uneven), `summit:N` (2 sockets of 3 a node) or
                the path of a TOML file.

        Raises:
            InputError: `spec` is none of these or has no ranks.
        """
        kind, _, argument = spec.partition(":")
        if kind in _PRESETS:
            return replace(_PRESETS[kind](argument, spec), name=spec)
        if spec.endswith(".toml"):
            return _read_toml(Path(spec))
        raise InputError(f"unknown topology {spec!r}; give one of {', '.join(_FORMS)} or a .toml file")


_FORMS = ("uniform:NxG", "nodes:G1,G2,...", "summit:N")


def _check_tree(name: str, levels: tuple[Level, ...], groups: IntRank) -> None:
    if groups.ndim != 2 or groups.shape[0] != len(levels) or len(levels) < 2:
        raise InputError(f"topology {name!r}: groups must be (num_levels, num_ranks) with at least two levels")
    if groups.shape[1] == 0:
        raise InputError(f"topology {name!r} has 0 ranks; give at least one node with at least one rank")
    if np.unique(groups[-1]).size != 1:
        raise InputError(f"topology {name!r}: the outermost level must be one group")
    for inner, outer in pairwise(groups):
        pairs = np.unique(np.stack([inner, outer]), axis=1).shape[1]
        if pairs != np.unique(inner).size:
            raise InputError(f"topology {name!r}: a group lies in two groups of the next level")


def _tree(name: str, levels: tuple[Level, ...], inner: list[np.ndarray[Any, Any]]) -> Topology:
    if not inner:
        raise InputError(f"topology {name!r} has only the outermost level; give at least two")
    # Groups keep their own numbers here, however large; the topology numbers them anew.
    return Topology(name, levels, np.stack([*inner, np.zeros_like(inner[0])]))


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


def _uniform(argument: str, spec: str) -> Topology:
    nodes, _, per_node = argument.partition("x")
    n, g = (_number(text, spec, "uniform:NxG") for text in (nodes, per_node))
    _check_size(n * g, spec)
    return Topology.from_nodes(np.arange(n * g) // g)


def _nodes(argument: str, spec: str) -> Topology:
    sizes = [_number(text, spec, "nodes:G1,G2,...") for text in argument.split(",")]
    _check_size(sum(sizes), spec)
    return Topology.from_nodes(np.repeat(np.arange(len(sizes)), sizes))


def _summit(argument: str, spec: str) -> Topology:
    num_ranks = 6 * _number(argument, spec, "summit:N")
    _check_size(num_ranks, spec)
    ranks = np.arange(num_ranks)
    return _tree(spec, _SUMMIT, [ranks // 3, ranks // 6])


_PRESETS: Final[dict[str, Callable[[str, str], Topology]]] = {
    "uniform": _uniform,
    "nodes": _nodes,
    "summit": _summit,
}


def _read_toml(path: Path) -> Topology:
    """Read `tree` (nested lists whose leaves count the ranks of an innermost group) and `[[levels]]`."""
    try:
        data = tomllib.loads(path.read_text())
        levels = tuple(Level(**level) for level in data["levels"])
        return _tree(str(data.get("name", path.stem)), levels, _flatten(data["tree"], len(levels)))
    except FileNotFoundError:
        raise InputError(f"no topology file {path}") from None
    except (KeyError, OSError, TypeError, ValueError) as err:
        raise InputError(
            f"{path} is not a topology: {err}; it needs `tree` and `[[levels]]`, see docs/topology.md"
        ) from err


def _flatten(tree: Any, num_levels: int) -> list[np.ndarray[Any, Any]]:
    """Return `rank_to_group` of every level but the outermost, inner to outer, of nested lists of rank counts."""
    paths: list[tuple[int, ...]] = []

    def walk(branch: Any, path: tuple[int, ...]) -> None:
        if isinstance(branch, list):
            for index, child in enumerate(branch):
                walk(child, (*path, index))
        elif isinstance(branch, int) and branch >= 0 and len(path) == num_levels - 1:
            if len(paths) + branch > MAX_RANKS:
                raise ValueError(f"it has more than {MAX_RANKS} ranks")
            paths.extend([path] * branch)
        else:
            raise ValueError(f"tree must be lists nested {num_levels - 1} deep around rank counts")

    walk(tree, ())
    ids = [{p[:depth]: i for i, p in enumerate(dict.fromkeys(q[:depth] for q in paths))} for depth in range(num_levels)]
    by_depth = [np.array([ids[d][p[:d]] for p in paths]) for d in range(num_levels - 1, 0, -1)]
    return [np.unique(row, return_inverse=True)[1] for row in by_depth]
