"""The loops of maximum bipartite matching and of greedy covers."""

from __future__ import annotations

import numpy as np

from sparsecomm.compiled import compiled
from sparsecomm.typing import Bools, IntGlobal


@compiled
def match(indptr: IntGlobal, indices: IntGlobal, num_right: int) -> IntGlobal:
    """Return the right vertex that a maximum matching gives every left vertex, -1 where it stays alone.

    Args:
        indptr, indices: the right neighbours of every left vertex.
        num_right: right vertices.

    Source: Hopcroft and Karp 1973.
    """
    num_left = indptr.size - 1
    left_mate = np.full(num_left, -1, np.int64)
    right_mate = np.full(num_right, -1, np.int64)
    for left in range(num_left):
        for place in range(indptr[left], indptr[left + 1]):
            if right_mate[indices[place]] < 0:
                left_mate[left], right_mate[indices[place]] = indices[place], left
                break
    depth, queue = np.empty(num_left, np.int64), np.empty(num_left, np.int64)
    path, next_place = np.empty(num_left, np.int64), np.empty(num_left, np.int64)
    while _layer(indptr, indices, left_mate, right_mate, depth, queue):
        next_place[:] = indptr[:-1]
        for root in range(num_left):
            if left_mate[root] < 0 and depth[root] == 0:
                _augment(root, indptr, indices, left_mate, right_mate, depth, path, next_place)
    return left_mate


@compiled
def _layer(
    indptr: IntGlobal,
    indices: IntGlobal,
    left_mate: IntGlobal,
    right_mate: IntGlobal,
    depth: IntGlobal,
    queue: IntGlobal,
) -> bool:
    """Set the depth of left vertices in the alternating forest; say whether it reaches a free right vertex."""
    depth[:] = -1
    end = 0
    for left in range(left_mate.size):
        if left_mate[left] < 0:
            depth[left] = 0
            queue[end] = left
            end += 1
    begin, found = 0, False
    while begin < end:
        left = queue[begin]
        begin += 1
        for place in range(indptr[left], indptr[left + 1]):
            other = right_mate[indices[place]]
            if other < 0:
                found = True
            elif depth[other] < 0 and not found:
                depth[other] = depth[left] + 1
                queue[end] = other
                end += 1
    return found


@compiled
def _augment(
    root: int,
    indptr: IntGlobal,
    indices: IntGlobal,
    left_mate: IntGlobal,
    right_mate: IntGlobal,
    depth: IntGlobal,
    path: IntGlobal,
    next_place: IntGlobal,
) -> None:
    """Follow layers from a free left vertex to a free right one, and turn the path around."""
    top = 0
    path[0] = root
    while top >= 0:
        left = path[top]
        if next_place[left] == indptr[left + 1]:
            top -= 1
            if top >= 0:
                next_place[path[top]] += 1
            continue
        right = indices[next_place[left]]
        other = right_mate[right]
        if other < 0:
            while top >= 0:
                left = path[top]
                right = indices[next_place[left]]
                next_place[left] += 1
                left_mate[left], right_mate[right] = right, left
                top -= 1
            return
        if depth[other] == depth[left] + 1:
            top += 1
            path[top] = other
        else:
            next_place[left] += 1


@compiled
def cover_greedily(indptr: IntGlobal, indices: IntGlobal) -> Bools:
    """Return which vertices a cover of all edges takes: neighbours of leaves first, else the vertex with most edges.

    Of vertices with as many edges the one that came to it last is taken, so that what is taken of a graph does not
    depend on which others lie beside it.

    Args:
        indptr, indices: the neighbours of every vertex, every edge at both its ends.
    """
    num_vertices = indptr.size - 1
    degree = indptr[1:] - indptr[:-1]
    taken = np.zeros(num_vertices, np.bool_)
    # A stack for every degree; a vertex whose degree has changed since it was put there is passed over.
    top = np.full(degree.max() + 1, -1, np.int64)
    below, vertex = np.empty(num_vertices + indices.size, np.int64), np.empty(num_vertices + indices.size, np.int64)
    count = 0
    for one in range(num_vertices):
        vertex[count], below[count], top[degree[one]] = one, top[degree[one]], count
        count += 1
    most = top.size - 1
    while most > 0:
        level = 1 if top[1] >= 0 else most
        if top[level] < 0:
            most -= 1
            continue
        one = vertex[top[level]]
        top[level] = below[top[level]]
        if taken[one] or degree[one] != level:
            continue
        if level == 1:
            place = indptr[one]
            while taken[indices[place]]:
                place += 1
            one = indices[place]
        taken[one], degree[one] = True, 0
        for place in range(indptr[one], indptr[one + 1]):
            other = indices[place]
            if not taken[other]:
                degree[other] -= 1
                vertex[count], below[count], top[degree[other]] = other, top[degree[other]], count
                count += 1
    return taken
