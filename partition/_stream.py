"""The loop of the one-pass partitioner."""

from __future__ import annotations

import numpy as np

from sparsecomm.compiled import compiled
from sparsecomm.typing import IntGlobal, IntRank


@compiled
def place_rows(
    first_row: int,
    indptr: IntGlobal,
    indices: IntRank | IntGlobal,
    square: bool,
    row_to_rank: IntRank,
    col_to_rank: IntRank,
    rank_to_node: IntRank,
    first_rank: IntRank,
    rank_loads: IntGlobal,
    rank_limits: IntGlobal,
    node_loads: IntGlobal,
    node_limits: IntGlobal,
) -> None:
    """Give each row of a block to a node, then to a rank of it: where its columns are, the less so the fuller.

    Args:
        first_row: of the block.
        indptr, indices: the block.
        square: whether rows and columns are the same, so that `row_to_rank` is `col_to_rank`.
        row_to_rank, col_to_rank: what is known; changed. A column is taken to be where it was used first until its
            own row comes.
        rank_to_node, first_rank: the ranks of node n are `first_rank[n] .. first_rank[n + 1] - 1`.
        rank_loads, node_loads: nonzeros so far; changed.
        rank_limits, node_limits: of these.
    """
    in_node = np.zeros(node_loads.size, np.int64)
    in_rank = np.zeros(rank_loads.size, np.int64)
    rank_room, node_room = np.empty(rank_loads.size, np.int64), np.empty(node_loads.size, np.int64)
    for row in range(indptr.size - 1):
        first, last = indptr[row], indptr[row + 1]
        in_node[:] = 0
        in_rank[:] = 0
        for place in range(first, last):
            rank = col_to_rank[indices[place]]
            if rank >= 0:
                in_rank[rank] += 1
                in_node[rank_to_node[rank]] += 1
        rank_room[:] = rank_limits - rank_loads
        node_room[:] = -1
        for one in range(rank_loads.size):
            node_room[rank_to_node[one]] = max(node_room[rank_to_node[one]], rank_room[one])
        node_room[:] = np.minimum(node_room, node_limits - node_loads)
        weight = last - first
        node = _best(in_node, node_loads, node_limits, node_room, 0, node_loads.size, weight)
        rank = _best(in_rank, rank_loads, rank_limits, rank_room, first_rank[node], first_rank[node + 1], weight)
        rank_loads[rank] += last - first
        node_loads[node] += last - first
        row_to_rank[first_row + row] = rank
        if square:
            col_to_rank[first_row + row] = rank
        for place in range(first, last):
            if col_to_rank[indices[place]] < 0:
                col_to_rank[indices[place]] = rank


@compiled
def _best(
    counts: IntGlobal, loads: IntGlobal, limits: IntGlobal, room: IntGlobal, first: int, last: int, weight: int
) -> int:
    """Return the part with the largest count times free share that has room; without room the emptiest one."""
    best, score = -1, -1.0
    emptiest, least = first, np.inf
    for part in range(first, last):
        if limits[part] == 0:
            continue
        full = (loads[part] + 1.0) / limits[part]
        if full < least:
            emptiest, least = part, full
        if weight <= room[part]:
            # Without a neighbour the emptier part wins: its score is below that of any neighbour.
            value = (counts[part] + 1e-3) * (1.0 - loads[part] / limits[part])
            if value > score:
                best, score = part, value
    return best if best >= 0 else emptiest
