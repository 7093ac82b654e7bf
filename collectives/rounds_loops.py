"""The loops of edge colouring."""

from __future__ import annotations

import numpy as np

from sparsecomm.compiled import compiled
from sparsecomm.typing import IntGlobal, IntRank


@compiled
def colour_edges(src: IntGlobal, dst: IntGlobal, num_src: int, num_dst: int, num_colours: int) -> IntRank:
    """Return a colour of every edge, (num_edges,) int32, no two alike at one end.

    Args:
        src, dst: (num_edges,) ends of each, numbered from 0 on either side. No edge twice.
        num_src, num_dst: vertices of either side.
        num_colours: at least the largest degree.

    An edge takes a colour that is free at both ends. Where there is none, the path from its target that alternates
    between a colour free at its source and one free at its target changes these two; it never comes to the source.

    Source: Konig 1916.
    """
    at_src = np.full((num_src, num_colours), -1, np.int32)
    at_dst = np.full((num_dst, num_colours), -1, np.int32)
    colour = np.full(src.size, -1, np.int32)
    path = np.empty(num_src + num_dst + 1, np.int64)
    for edge in range(src.size):
        left, right = src[edge], dst[edge]
        one = other = -1
        for free in range(num_colours):
            if at_src[left, free] < 0:
                if at_dst[right, free] < 0:
                    one = other = free
                    break
                if one < 0:
                    one = free
            elif other < 0 and at_dst[right, free] < 0:
                other = free
        if one != other:
            _exchange_colours(right, one, other, src, dst, at_src, at_dst, colour, path)
        colour[edge], at_src[left, one], at_dst[right, one] = one, edge, edge
    return colour


@compiled
def _exchange_colours(
    right: int,
    one: int,
    other: int,
    src: IntGlobal,
    dst: IntGlobal,
    at_src: IntRank,
    at_dst: IntRank,
    colour: IntRank,
    path: IntGlobal,
) -> None:
    """Exchange two colours along the path from a target that begins with colour `one`."""
    length = 0
    edge = at_dst[right, one]
    while edge >= 0:
        path[length] = edge
        length += 1
        edge = at_src[src[edge], other] if colour[edge] == one else at_dst[dst[edge], one]
    for place in range(length):
        edge = path[place]
        at_src[src[edge], colour[edge]] = at_dst[dst[edge], colour[edge]] = -1
    for place in range(length):
        edge = path[place]
        colour[edge] = other if colour[edge] == one else one
        at_src[src[edge], colour[edge]] = at_dst[dst[edge], colour[edge]] = edge
