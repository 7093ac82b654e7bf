"""Loops over the nets of a partition."""

from __future__ import annotations

import numpy as np

from sparsecomm.compiled import compiled
from sparsecomm.typing import Floats, IntGlobal, IntRank


@compiled
def count_pins(indptr: IntRank, pins: IntRank, part: IntRank, num_parts: int) -> IntRank:
    """Return (nets, num_parts): how many pins of each net are in each part."""
    counts = np.zeros((indptr.size - 1, num_parts), np.int32)
    for net in range(indptr.size - 1):
        for place in range(indptr[net], indptr[net + 1]):
            counts[net, part[pins[place]]] += 1
    return counts


@compiled
def move_vertices(
    order: IntGlobal,
    vertex_indptr: IntRank,
    vertex_nets: IntRank,
    counts: IntRank,
    part: IntRank,
    weights: IntGlobal,
    loads: IntGlobal,
    limits: IntGlobal,
    price: Floats,
) -> int:
    """Move each vertex once, to the part that spares most rows and has room; return how many moved.

    A vertex of a part beyond its limit moves whatever it costs. Of equal parts the one with the lighter load wins.

    Args:
        order: vertices in the order they are looked at.
        vertex_indptr, vertex_nets: the nets of each vertex.
        counts: (nets, parts) pins of each net in each part; changed.
        part: of each vertex; changed.
        weights: (vertices, resources).
        loads, limits: (parts, resources); `loads` is changed.
        price: (parts,) of a row that comes to a part.
    """
    num_parts, num_kinds = loads.shape
    here = np.zeros(num_parts, np.int64)
    moved = 0
    for vertex in order:
        old = part[vertex]
        first, last = vertex_indptr[vertex], vertex_indptr[vertex + 1]
        here[:] = 0
        alone = 0
        for place in range(first, last):
            net = vertex_nets[place]
            if counts[net, old] == 1:
                alone += 1
            for one in range(num_parts):
                if counts[net, one] > 0:
                    here[one] += 1
        over = False
        for kind in range(num_kinds):
            if loads[old, kind] > limits[old, kind] and weights[vertex, kind] > 0:
                over = True
        if alone == 0 and not over:
            continue
        best, most = -1, 0.0
        for one in range(num_parts):
            if one == old:
                continue
            room = True
            for kind in range(num_kinds):
                if weights[vertex, kind] > 0 and loads[one, kind] + weights[vertex, kind] > limits[one, kind]:
                    room = False
            if not room:
                continue
            gain = price[old] * alone - price[one] * (last - first - here[one])
            emptier = best >= 0 and loads[one, 0] * limits[best, 0] < loads[best, 0] * limits[one, 0]
            if best < 0 or gain > most or (gain == most and emptier):
                best, most = one, gain
        if best < 0:
            continue
        lighter = weights[vertex, 0] > 0 and loads[best, 0] + weights[vertex, 0] < loads[old, 0]
        if over or most > 0 or (most == 0 and lighter):
            for place in range(first, last):
                net = vertex_nets[place]
                counts[net, old] -= 1
                counts[net, best] += 1
            for kind in range(num_kinds):
                loads[old, kind] -= weights[vertex, kind]
                loads[best, kind] += weights[vertex, kind]
            part[vertex] = best
            moved += 1
    return moved
