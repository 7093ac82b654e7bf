"""Rows to nodes first, so that few cross the network, then to the ranks inside each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparsecomm.errors import SparseCommError
from sparsecomm.partition.refine import part_loads, refine
from sparsecomm.partition.request import Request
from sparsecomm.partition.structure import Structure
from sparsecomm.topology import Topology
from sparsecomm.typing import Floats, IntGlobal, IntRank


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """One split of one structure.

    Args:
        shares: (parts,) fractions of the load, all above 0, with sum 1.
        slack: how far a part may go beyond its share, as a fraction of it.
        request: seed, side and effort.
        distances: (parts, parts) int64, relative cost of a row from part to part.
        folder: for files.
    """

    shares: Floats
    slack: float
    request: Request
    distances: IntGlobal
    folder: Path

    @property
    def num_parts(self) -> int:
        return self.shares.size

    def limits(self, total: int) -> list[int]:
        """Return the largest load of each part."""
        return [int(limit) for limit in np.ceil(self.shares * total * (1 + self.slack))]


Cutter = Callable[[Structure, Cut], IntRank]

# The network is the narrowest level, yet ranks need some of the allowance to even out rows that cannot be split.
_NODE_PART_OF_ALLOWANCE = 0.6


def split_levels(structure: Structure, topology: Topology, cutter: Cutter, request: Request, folder: Path) -> IntRank:
    """Give every vertex a rank, (num_vertices,) int32, level by level from the outermost.

    Raises:
        SparseCommError: the cutter's answer is not a split.
    """
    shares = request.shares(topology)
    loads = resources(structure, request)
    part = np.zeros(structure.num_vertices, dtype=np.int32)
    parent = np.zeros(topology.num_ranks, dtype=np.int32)
    for place, group in enumerate(_steps(topology, request)):
        last = group.max() + 1 == topology.num_ranks
        allowance = (request.balance - 1) * (1 if last else _NODE_PART_OF_ALLOWANCE + 0.2 * place)
        limits = group_limits(loads, shares, group, 1 + allowance, request)
        order = np.argsort(part, kind="stable")
        starts = np.searchsorted(part[order], np.arange(parent.max() + 2))
        child_of = np.empty_like(part)
        for one in range(parent.max() + 1):
            vertices = order[starts[one] : starts[one + 1]]
            children = np.unique(group[parent == one])
            child_of[vertices] = _split(
                structure, loads, vertices, children, group, shares, limits, topology, cutter, request, folder, place
            )
        part, parent = child_of, group
    return spread_idle(structure, part, shares)


def _steps(topology: Topology, request: Request) -> list[IntRank]:
    """Return rank_to_group of every level that divides the one before it, outermost first, the ranks last."""
    inner = [] if request.flat else [topology.group_of(level) for level in range(topology.num_levels - 2, -1, -1)]
    steps, before = [], 1
    for group in [*inner, topology.group_of(-1)]:
        if group.max() + 1 > before:
            steps.append(group)
            before = group.max() + 1
    return steps


def _split(
    structure: Structure,
    loads: IntGlobal,
    vertices: IntGlobal,
    children: IntRank,
    group: IntRank,
    shares: Floats,
    limits: IntGlobal,
    topology: Topology,
    cutter: Cutter,
    request: Request,
    folder: Path,
    place: int,
) -> IntRank:
    """Split `vertices` among the groups `children`, those without a share left out."""
    meant = np.bincount(group, shares)[children]
    children, meant = children[meant > 0], meant[meant > 0]
    if children.size <= 1 or vertices.size == 0:
        return np.full(vertices.size, children[0] if children.size else 0, dtype=np.int32)
    whole = vertices.size == structure.num_vertices
    piece = structure if whole else structure.restrict(vertices)
    total = max(int(piece.weights.sum()), 1)
    fractions = meant / meant.sum()
    slack = max(float((limits[children, 0] / (fractions * total)).min()) - 1, 0.002)
    first = np.array([int(np.flatnonzero(group == child)[0]) for child in children], dtype=np.int32)
    cut = Cut(fractions, slack, request, _distances(topology, first), folder)
    found = _checked(cutter(piece, cut), piece, cut) if vertices.size > children.size else spread_out(vertices.size)
    own, most = loads[vertices], limits[children]
    if request.refine or (part_loads(found, own, children.size) > most).any():
        rounds = (2, 4, 8, 8)[request.effort] if request.refine else 1
        found = refine(piece, found, own, most, seed=request.seed, rounds=rounds, gather=place > 0)
    return children[found]


def spread_out(num_vertices: int) -> IntRank:
    """Give each vertex a part of its own."""
    return np.arange(num_vertices, dtype=np.int32)


def _checked(found: IntRank, piece: Structure, cut: Cut) -> IntRank:
    answer = np.asarray(found)
    whole = answer.shape == (piece.num_vertices,) and answer.dtype.kind in "iu"
    if not whole or (answer.size and (answer.min() < 0 or answer.max() >= cut.num_parts)):
        raise SparseCommError(
            f"the library gave no split of {piece.num_vertices} vertices into {cut.num_parts} parts; try another method"
        )
    return answer.astype(np.int32)


def _distances(topology: Topology, ranks: IntRank) -> IntGlobal:
    """Return the time of a byte between `ranks`, the fastest level being 1."""
    pace: Floats = np.array([1 / (level.bandwidth_Bps * level.ports) for level in topology.levels])
    relative = np.maximum(np.rint(pace / pace.min()), 1).astype(np.int64)
    return np.asarray(relative[topology.level_of(ranks[:, None], ranks[None, :])])


def resources(structure: Structure, request: Request) -> IntGlobal:
    """Return what each vertex takes of a rank, (num_vertices, 1 or 2): load, and bytes where these are limited."""
    if not request.memory_bytes:
        return structure.weights[:, None]
    rows = np.full(structure.num_vertices, 2 if structure.square else 1, dtype=np.int64)
    entries = np.zeros(structure.num_vertices, dtype=np.int64)
    entries[: structure.num_rows] = np.diff(structure.pattern.indptr)
    return np.stack([structure.weights, request.bytes_of(rows, entries)], axis=1)


def group_limits(loads: IntGlobal, shares: Floats, group: IntRank, balance: float, request: Request) -> IntGlobal:
    """Return (groups, resources): the most that each group may hold; a row that is larger goes in any case."""
    meant = np.bincount(group, shares)
    total, heaviest = int(loads[:, 0].sum()), int(loads[:, 0].max(initial=0))
    limits: IntGlobal = np.maximum(np.floor(meant * total * balance), heaviest).astype(np.int64)
    limits[meant == 0] = 0
    if loads.shape[1] == 1:
        return limits[:, None]
    memory = np.bincount(group[shares > 0], minlength=meant.size).astype(np.int64) * request.memory_bytes
    return np.stack([limits, memory], axis=1)


def spread_idle(structure: Structure, part: IntRank, shares: Floats) -> IntRank:
    """Give vertices without nonzeros to the ranks with fewest vertices: libraries put them all in one place."""
    row, col = structure.ends()
    idle = np.ones(part.size, dtype=np.bool_)
    idle[row] = idle[col] = False
    used = np.flatnonzero(shares > 0)
    counts = np.bincount(part[~idle], minlength=shares.size)[used]
    order = np.argsort(counts, kind="stable")
    steps = np.arange(1, used.size + 1)
    # Ranks filled up to the level of the last one that idle vertices reach.
    needed = steps * counts[order] - np.cumsum(counts[order])
    filled = int(np.searchsorted(needed, np.count_nonzero(idle), side="right"))
    level, longer = divmod(int(np.count_nonzero(idle) + counts[order][:filled].sum()), max(filled, 1))
    missing = np.maximum(level - counts[order][:filled], 0)
    missing[:longer] += 1
    result = part.copy()
    result[idle] = np.repeat(used[order][:filled], missing)[: np.count_nonzero(idle)]
    return result
