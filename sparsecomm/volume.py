"""How much a schedule moves, per level, and how little any schedule could move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from sparsecomm.bipartite import matching_sizes
from sparsecomm.cover import node_cover
from sparsecomm.pattern import Remote
from sparsecomm.table import Router, Table, part_cuts, run_starts, split
from sparsecomm.topology import Topology
from sparsecomm.typing import IntGlobal, IntRank, frozen


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """Rows of X and partial rows of Y moved, per level of the topology (inner to outer), all int64.

    Args:
        rows: copies between ranks.
        messages: distinct (stage, src, dst) with at least one row.
        max_rank_rows: rows of the busiest rank, the larger of in and out.
        max_rank_messages: messages of the busiest rank, the larger of in and out.
        max_group_in, max_group_out: rows into and out of the busiest child group of the level (at the innermost
            level a rank, at the outermost a node).
        max_rank_buffer: rows of slots and message buffers on the fullest rank (one number, all levels together).
        num_stages: stages in which anything moves.
        phases: what follows each other, the gather and then the scatter, where partial rows are made of ghosts; empty
            where all of it may be in flight together.
    """

    rows: IntGlobal
    messages: IntGlobal
    max_rank_rows: IntGlobal
    max_rank_messages: IntGlobal
    max_group_in: IntGlobal
    max_group_out: IntGlobal
    max_rank_buffer: int
    num_stages: int
    phases: tuple[Volume, ...] = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Volume) and all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in self.__slots__
        )

    __hash__ = None  # type: ignore[assignment]


class Moves(NamedTuple):
    """The messages of one plan in the direction that it is run, on the rank that the copies come to.

    Args:
        messages: `stage`, `level`, `src` (int32) and `rows` (int64), all of a stage side by side on a rank.
        num_own: (num_held,) int64, rows each held rank owns, which take slots too.
        reverse: whether the plan runs backwards, so that rows leave where the copies arrive.
    """

    messages: Table
    num_own: IntGlobal
    reverse: bool

    @staticmethod
    def of(copies: Table, levels: Sequence[int], num_own: IntGlobal, reverse: bool) -> Moves:
        """Return the messages that copies make.

        Args:
            copies: `stage` and `src` (int32); those of a message lie side by side.
            levels: of every stage.
            num_own, reverse: as above.
        """
        starts = np.flatnonzero(run_starts([copies.rank, copies["stage"], copies["src"]]))
        stage = copies["stage"][starts]
        columns = {
            "stage": stage,
            "level": np.array([*levels, 0], dtype=np.int32)[stage],
            "src": copies["src"][starts],
            "rows": np.diff(np.append(starts, len(copies))),
        }
        return Moves(Table(copies.rank[starts], columns), num_own, reverse)


def volume_of(moves: Sequence[Moves], topology: Topology, router: Router, *, in_turn: bool = False) -> Volume:
    """Count what the copies of one or more plans move together; `in_turn`, a plan waits for the one before it.

    Note: Collective over comm.
    """
    counted = [(move, _ends_of(move, topology, router), _num_stages(move.messages["stage"], router)) for move in moves]
    phases = tuple(_volume_of([one], topology, router) for one in counted) if in_turn else ()
    return replace(_volume_of(counted, topology, router), phases=phases)


def _volume_of(counted: Sequence[tuple[Moves, IntGlobal, int]], topology: Topology, router: Router) -> Volume:
    """Return what plans move together, given what `_ends_of` and `_num_stages` find of each.

    Note: Collective over comm.
    """
    moves, ends, num_stages = zip(*counted, strict=True)
    turned = [side[::-1] if move.reverse else side for move, side in zip(moves, ends, strict=True)]
    (rows_in, messages_in), (rows_out, messages_out) = np.moveaxis(np.sum(turned, axis=0), 3, 1)
    # A copy takes a slot and a place in the receive buffer where it ends, and a place in the send buffer at its start.
    held = np.tensordot([2, 1], np.sum(ends, axis=0)[..., 0].sum(axis=2), 1)
    buffer = np.sum([move.num_own for move in moves], axis=0) + held
    return Volume(
        frozen(router.reduce(rows_in.sum(axis=0), "sum")),
        frozen(router.reduce(messages_in.sum(axis=0), "sum")),
        frozen(router.reduce(np.maximum(rows_in, rows_out).max(axis=0), "max")),
        frozen(router.reduce(np.maximum(messages_in, messages_out).max(axis=0), "max")),
        frozen(_busiest_group(rows_in, topology, router)),
        frozen(_busiest_group(rows_out, topology, router)),
        int(router.reduce(buffer.max(keepdims=True), "max")[0]),
        sum(num_stages),
    )


def _num_stages(stage: IntRank, router: Router) -> int:
    """Return in how many stages any rank has copies."""
    most = int(router.reduce(np.array([stage.max(initial=-1)], dtype=np.int64), "max")[0])
    here = np.bincount(stage, minlength=most + 2) > 0
    return int(np.count_nonzero(router.reduce(here, "max")))


def _ends_of(move: Moves, topology: Topology, router: Router) -> IntGlobal:
    """Return the rows and the messages of every held rank, in the direction of the copies.

    Returns:
        (2, num_held, num_levels, 2) int64: what comes and what leaves; of each the rows and the messages.

    Note: Collective over comm.
    """
    messages = move.messages
    rows, level = messages["rows"], messages["level"]
    size, first = topology.num_levels, router.held.start
    at_dst = _tally(messages.rank - first, level, rows, (len(router.held), size))
    at_src = _tally(messages["src"], level, rows, (router.num_ranks, size))
    senders = np.flatnonzero(at_src[..., 1].any(axis=1)).astype(np.int32)
    told = Table(np.full_like(senders, first), {"ends": at_src[senders].reshape(-1, 2 * size)})
    told = router.route(told, senders)
    total = np.zeros((len(router.held), 2 * size), dtype=np.int64)
    np.add.at(total, told.rank - first, told["ends"])
    return np.stack([at_dst, total.reshape(at_dst.shape)])


def _tally(rank: IntRank, level: IntRank, rows: IntGlobal, shape: tuple[int, int]) -> IntGlobal:
    """Return (*shape, 2) int64: the rows and the number of messages of each rank and level."""
    cells = rank.astype(np.int64) * shape[1] + level
    size = shape[0] * shape[1]
    counts = [np.bincount(cells, weight, size).astype(np.int64) for weight in (rows, None)]
    return np.stack(counts, axis=1).reshape(*shape, 2)


def _busiest_group(rows: IntGlobal, topology: Topology, router: Router) -> IntGlobal:
    """Return for every level the most rows of one child group, given (num_held, num_levels) rows of each rank."""
    ranks = np.arange(router.held.start, router.held.stop, dtype=np.int32)
    busiest = np.zeros(topology.num_levels, dtype=np.int64)
    for level in range(topology.num_levels):
        child = topology.group_of(level - 1)
        table = router.route(Table(ranks, {"rows": rows[:, level]}), topology.first_of_group(level - 1)[child[ranks]])
        totals = np.bincount(table.rank - router.held.start, table["rows"], len(ranks))
        busiest[level] = router.reduce(np.array([totals.max()], dtype=np.int64), "max")[0]
    return busiest


class Bounds(NamedTuple):
    """What the network cannot be spared, in rows.

    Args:
        two_party_minimum: fewest rows of any schedule that forms each product in the node of its row or of its column.
        network: no linear schedule moves fewer rows over the network for generic values.
        busiest_node: nor can its busiest node have fewer in, or fewer out.
    """

    two_party_minimum: int
    network: int
    busiest_node: int


def bounds_of(remote: Remote, topology: Topology, router: Router) -> Bounds:
    """Return the two-party minimum and the lower bounds for a matrix on a topology.

    Rows into node d are at least the term rank of A[rows of d, columns outside d], rows out of s that of
    A[rows outside s, columns of s].

    Note: Collective over comm.

    Source: Kayaaslan, Aykanat, Ucar 2018 and SHIRO 2025 (cover by Konig's theorem), here on node pairs; term rank.
    """
    cover = node_cover(remote, topology, router)
    into, out = (_term_ranks(remote, topology, router, side) for side in ("into", "out"))
    total = router.reduce(np.array([cover.size, into.sum(), out.sum()], dtype=np.int64), "sum")
    busiest = router.reduce(np.array([max(into.max(initial=0), out.max(initial=0))], dtype=np.int64), "max")
    return Bounds(int(total[0]), int(total[1:].max()), int(busiest[0]))


def _term_ranks(remote: Remote, topology: Topology, router: Router, side: Literal["into", "out"]) -> IntGlobal:
    """Return the term rank of what crosses into each node, or out of it, of the nodes whose first rank is held."""
    table, node = remote.nonzeros, topology.rank_to_node
    dst, src = node[table.rank], node[table["col_rank"]]
    crossing = np.flatnonzero(dst != src)
    solver = topology.first_of_group(topology.num_levels - 2)[(dst if side == "into" else src)[crossing]]
    edges = table.only("row", "col").take(crossing)
    if side == "out" and len(router.held) == router.num_ranks:
        edges = Table(solver, edges.columns).sort("col", "row")  # far faster than to route them, and no less in order
    else:
        edges = router.route(edges, solver)
    parts = split(edges, part_cuts(edges, topology.rank_to_node, router))
    return np.concatenate([matching_sizes(part.rank, part["row"], part["col"]) for part in parts])
