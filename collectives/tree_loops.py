"""The loops of the tree strategy: shortest paths over links that have prices."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sparsecomm.compiled import compiled
from sparsecomm.typing import Bools, IntGlobal, IntRank

Floats = npt.NDArray[np.float64]

_POWER = 4.0  # of the load of a link in its price; 8 was no better
_PASSES = 3  # over all chunks; after the first, each gives back what it occupied before it grows anew


@compiled
def grow_trees(
    src: IntRank, indptr: IntGlobal, dsts: IntRank, num_bytes: Floats, max_depth: int, path: IntRank, Bps: Floats
) -> IntGlobal:
    """Return the edges of one tree for each chunk, (num_edges, 4) int64: chunk, depth, from, to.

    Args:
        src: (num_chunks,) where the rows of each chunk start out.
        indptr, dsts: `dsts[indptr[i]:indptr[i + 1]]` are the ranks that chunk i goes to.
        num_bytes: (num_chunks,) of all rows of the chunk.
        max_depth: edges from the root to a leaf, at most.
        path, Bps: of `Links`.

    The edges of one depth are a stage, which takes as long as its busiest link. A link is as dear as its share in the
    sum of powered loads of its stage: the shares of a stage sum up to one, so that a row goes over links that are free
    beside the busiest. Of the passes the one with the shortest stages is kept.

    Source: SPST of DGCL, Cai et al. 2021; prices of Garg and Konemann 1998 for its costs.
    """
    num_ranks = path.shape[0]
    # Not from nothing, or the first rows would decide which links are dear.
    base = 0.1 * _star_load(src, indptr, dsts, num_bytes, path, Bps)
    busy = np.full((max_depth, Bps.size), base)
    total = np.full(max_depth, base**_POWER * Bps.size)
    edges, kept = np.empty((2 * dsts.size, 4), np.int64), np.empty((0, 4), np.int64)
    begin, least = np.zeros(src.size + 1, np.int64), np.inf
    ranks, marks = np.empty((3, num_ranks), np.int64), np.empty((3, num_ranks), np.bool_)
    distance = np.empty(num_ranks)
    for number in range(_PASSES):
        old, old_begin, count = edges.copy(), begin.copy(), 0
        for chunk in range(src.size):
            if number:
                for place in range(old_begin[chunk], old_begin[chunk + 1]):
                    _occupy(old[place], -num_bytes[chunk], busy, total, path, Bps)
            begin[chunk] = count
            users = dsts[indptr[chunk] : indptr[chunk + 1]]
            while count + num_ranks > len(edges):
                edges = np.concatenate((edges, np.empty((len(edges) + num_ranks, 4), np.int64)))
            tree = edges[count:]
            size = _grow(src[chunk], users, num_bytes[chunk], tree, busy, total, path, Bps, ranks, marks, distance)
            tree[:size, 0] = chunk
            count += size
        begin[-1] = count
        seconds = 0.0
        for stage in range(max_depth):
            seconds += busy[stage].max()
        if seconds < least:
            least, kept = seconds, edges[:count].copy()
    return kept


@compiled
def _star_load(src: IntRank, indptr: IntGlobal, dsts: IntRank, num_bytes: Floats, path: IntRank, Bps: Floats) -> float:
    """Return how many seconds the busiest link would take if every row went straight to all its users."""
    seconds = np.zeros(Bps.size)
    for chunk in range(src.size):
        for place in range(indptr[chunk], indptr[chunk + 1]):
            for link in path[src[chunk], dsts[place]]:
                if link >= 0:
                    seconds[link] += num_bytes[chunk] / Bps[link]
    return float(seconds.max())


@compiled
def _grow(
    root: int,
    users: IntRank,
    num_bytes: float,
    tree: IntGlobal,
    busy: Floats,
    total: Floats,
    path: IntRank,
    Bps: Floats,
    ranks: IntGlobal,
    marks: Bools,
    distance: Floats,
) -> int:
    """Write the edges of one tree, and return how many: to the nearest user first, then from the tree to the next."""
    depth, before, way = ranks
    reached, waits, done = marks
    reached[:], waits[:] = False, False
    reached[root], depth[root] = True, 0
    waits[users] = True
    count, left = 0, users.size
    while left:
        end = _nearest(num_bytes, busy, total, path, Bps, depth, before, reached, waits, done, distance)
        top = 0
        while not reached[end]:
            way[top] = end
            end, top = before[end], top + 1
        while top:
            top -= 1
            edge = tree[count]
            edge[1], edge[2], edge[3] = depth[end], end, way[top]
            _occupy(edge, num_bytes, busy, total, path, Bps)
            end = way[top]
            left -= waits[end]
            reached[end], waits[end] = True, False
            count += 1
    return count


@compiled
def _nearest(
    num_bytes: float,
    busy: Floats,
    total: Floats,
    path: IntRank,
    Bps: Floats,
    depth: IntGlobal,
    before: IntGlobal,
    reached: Bools,
    waits: Bools,
    done: Bools,
    distance: Floats,
) -> int:
    """Return the nearest rank that waits, having set `before` and `depth` of the ranks on the way to it."""
    for rank in range(reached.size):
        distance[rank], done[rank] = 0.0 if reached[rank] else np.inf, False
    while True:
        nearest = -1
        for rank in range(reached.size):
            if not done[rank] and distance[rank] < np.inf and (nearest < 0 or distance[rank] < distance[nearest]):
                nearest = rank
        if waits[nearest]:
            return nearest
        done[nearest] = True
        stage = depth[nearest]
        if stage == total.size:
            continue
        for rank in range(reached.size):
            if not reached[rank] and not done[rank]:
                new = distance[nearest]
                for link in path[nearest, rank]:
                    if link >= 0:
                        new += num_bytes / Bps[link] * busy[stage, link] ** _POWER / total[stage]
                if new < distance[rank]:
                    distance[rank], before[rank], depth[rank] = new, nearest, stage + 1


@compiled
def _occupy(edge: IntGlobal, num_bytes: float, busy: Floats, total: Floats, path: IntRank, Bps: Floats) -> None:
    """Add bytes to the links of an edge (chunk, depth, from, to)."""
    stage = edge[1]
    for link in path[edge[2], edge[3]]:
        if link >= 0:
            total[stage] -= busy[stage, link] ** _POWER
            busy[stage, link] += num_bytes / Bps[link]
            total[stage] += busy[stage, link] ** _POWER
