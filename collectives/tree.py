"""Strategy `tree`: every row grows a tree over the links that are least taken; for nodes that are not all-to-all."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from sparsecomm.collectives.copies import Copies
from sparsecomm.collectives.links import MAX_RANKS, Links
from sparsecomm.collectives.strategy import Schedule, Strategy, register_strategy
from sparsecomm.collectives.striped import ROW_BYTES
from sparsecomm.pattern import Pattern, Remote
from sparsecomm.table import Router, Table, number, run_starts
from sparsecomm.topology import Topology
from sparsecomm.typing import IntGlobal, IntRank

MAX_DEPTH: Final = 4
"""Copies from the owner of a row to its last user, at most: one more than Summit's network, node and socket."""

_CHUNKS: Final = 64  # a class of rows is cut into so many, as DGCL does
_MOST_STEPS: Final = 10_000_000  # ghosts x pairs of ranks; less than a second of shortest paths


def tree_copies(pattern: Pattern, topology: Topology) -> Copies:
    """Schedule every ghost along trees, rows with the same owner and the same users along few of them.

    Latencies are not looked at: trees have more stages than other schedules, and are for rows that fill the links.

    Source: SPST of DGCL, Cai et al. 2021.
    """
    if not len(pattern.ghosts):
        return Copies.none(pattern)
    classes = _Classes.of(pattern.ghosts)
    chunk_of_row, first_row = classes.chunks()
    order = np.random.default_rng(0).permutation(first_row.size)
    edges = _grow(classes, np.bincount(chunk_of_row)[order], first_row[order], topology)
    return _copies(pattern, classes, order[edges[:, 0]], edges, chunk_of_row, topology)


class _Classes(NamedTuple):
    """The rows that anybody needs, ordered by class: rows with the same owner and the same users.

    Args:
        row, owner: (num_rows,), of every row.
        group: (num_rows,) int64 ascending, the class of each.
        indptr, users: int64 and int32; `users[indptr[i]:indptr[i + 1]]` need `row[i]`.
    """

    row: IntGlobal
    owner: IntRank
    group: IntGlobal
    indptr: IntGlobal
    users: IntRank

    @staticmethod
    def of(ghosts: Table) -> _Classes:
        by_row = np.argsort(ghosts["row"], kind="stable")
        row, rank, owner = ghosts["row"][by_row], ghosts.rank[by_row], ghosts["owner"][by_row]
        starts = np.flatnonzero(run_starts([row]))
        words = [
            np.add.reduceat(np.where(rank // 32 == word, np.int64(1) << (rank % 32), 0), starts)
            for word in range(int(rank.max()) // 32 + 1)
        ]
        group = number([owner[starts], *words])
        order = np.argsort(group, kind="stable")
        counts = np.diff(np.append(starts, row.size))[order]
        indptr = np.concatenate([[0], np.cumsum(counts)])
        place = np.repeat(starts[order] - indptr[:-1], counts) + np.arange(row.size)
        return _Classes(row[starts][order], owner[starts][order], group[order], indptr, rank[place])

    def chunks(self) -> tuple[IntGlobal, IntGlobal]:
        """Return the chunk of each row, ascending, and the first row of each chunk: classes cut into even pieces."""
        first = np.flatnonzero(run_starts([self.group]))
        size = np.diff(np.append(first, self.group.size))
        place = np.arange(self.group.size) - first[self.group]
        piece = place * np.minimum(size, _CHUNKS)[self.group] // size[self.group]
        starts = run_starts([self.group, piece])
        return np.cumsum(starts) - 1, np.flatnonzero(starts)


def _grow(classes: _Classes, size: IntGlobal, first: IntGlobal, topology: Topology) -> IntGlobal:
    """Return the edges of the trees of all chunks, given how many rows each has and the first of them."""
    from sparsecomm.collectives.tree_loops import grow_trees  # here, because it loads numba

    links = Links.of(topology)
    counts = np.diff(classes.indptr)[first]
    indptr = np.concatenate([[0], np.cumsum(counts)])
    place = np.repeat(classes.indptr[first] - indptr[:-1], counts) + np.arange(indptr[-1])
    num_bytes = size.astype(np.float64) * ROW_BYTES
    users = classes.users[place]
    return grow_trees(classes.owner[first], indptr, users, num_bytes, MAX_DEPTH, links.path, links.Bps)


def _copies(
    pattern: Pattern, classes: _Classes, chunk: IntGlobal, edges: IntGlobal, chunk_of_row: IntGlobal, topology: Topology
) -> Copies:
    """Send every row of a chunk along the edges of its tree, one stage for each depth and level that occurs."""
    src, dst = (edges[:, side].astype(np.int32) for side in (2, 3))
    level = topology.level_of(src, dst)
    key = edges[:, 1] * topology.num_levels + (topology.num_levels - 1 - level)
    used = np.unique(key)
    size = np.bincount(chunk_of_row)
    first = np.cumsum(size) - size
    rows = size[chunk]
    edge = np.repeat(np.arange(chunk.size), rows)
    place = np.arange(edge.size) - np.repeat(np.cumsum(rows) - rows, rows)
    stage = np.searchsorted(used, key).astype(np.int32)
    columns = {"stage": stage[edge], "src": src[edge], "row": classes.row[first[chunk[edge]] + place]}
    levels = tuple((topology.num_levels - 1 - used % topology.num_levels).tolist())
    return Copies(pattern, Table(dst[edge], columns).sort("stage", "src", "row"), levels)


def _schedule(remote: Remote, topology: Topology, router: Router) -> Schedule:
    gather = tree_copies(Pattern.of_cols(remote), topology)
    return Schedule(gather, Copies.none(Pattern.empty(remote.layouts.rows)), remote.nonzeros.rank)


def _refuses(remote: Remote, topology: Topology, router: Router) -> str | None:
    if len(router.held) < router.num_ranks:
        return "trees are planned offline only: make the plan by `sparsecomm plan -s tree -o DIR` and run it by --plan"
    if topology.num_ranks > MAX_RANKS:
        return f"trees are for machines of at most {MAX_RANKS} ranks, not {topology.num_ranks:,}"
    return None


def _too_much(remote: Remote, topology: Topology, router: Router) -> str | None:
    if topology.num_levels < 3 and not len(topology.links):
        return "nodes are all-to-all, so that trees have no links to choose from"
    steps = len(Pattern.of_cols(remote).ghosts) * topology.num_ranks**2
    return f"{steps:,} ghosts x pairs of ranks, counted unasked up to {_MOST_STEPS:,}" if steps > _MOST_STEPS else None


TREE = register_strategy(Strategy("tree", _schedule, _too_much, _refuses, offline=True))
