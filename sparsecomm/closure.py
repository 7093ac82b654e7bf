"""Maximum closures: the most profitable set of vertices that leaves no arc."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components, maximum_flow

from sparsecomm.table import distinct
from sparsecomm.typing import Bools, IntGlobal

_ENDLESS: Final = 2**31 - 1  # scipy's flows are int32


def maximum_closure(profit: IntGlobal, tail: IntGlobal, head: IntGlobal) -> Bools:
    """Return the smallest of the most profitable sets of vertices that hold `head[i]` whenever they hold `tail[i]`.

    Args:
        profit: (num_vertices,) int64, of either sign. Where sums pass 2**31 the set may fall short of the best one.
        tail, head: (num_arcs,) int64.

    Source: Picard 1976 (closure by minimum cut), on strongly connected components.
    """
    num_vertices = profit.size
    if num_vertices == 0:
        return np.zeros(0, dtype=np.bool_)
    ones = np.ones(tail.size, dtype=np.int8)
    graph = coo_array((ones, (tail, head)), shape=(num_vertices, num_vertices)).tocsr()
    num_parts, part = connected_components(graph, directed=True, connection="strong")
    total = np.clip(np.bincount(part, profit, num_parts), -_ENDLESS, _ENDLESS).astype(np.int64)
    arcs = distinct([part[tail].astype(np.int64), part[head].astype(np.int64)])
    return np.asarray(_closed(total, *arcs)[part])


def _closed(profit: IntGlobal, tail: IntGlobal, head: IntGlobal) -> Bools:
    """Cut a network source -> gains -> ... -> losses -> sink and return what the source still reaches."""
    tail, head = tail[tail != head], head[tail != head]
    source, sink = profit.size, profit.size + 1
    gains, losses = np.flatnonzero(profit > 0), np.flatnonzero(profit < 0)
    tails = np.concatenate([np.full(gains.size, source), losses, tail])
    heads = np.concatenate([gains, np.full(losses.size, sink), head])
    room = np.concatenate([profit[gains], -profit[losses], np.full(tail.size, _ENDLESS)]).astype(np.int32)
    network: csr_array[Any] = coo_array((room, (tails, heads)), shape=(sink + 1, sink + 1)).tocsr()
    residual = csr_array(network - maximum_flow(network, source, sink).flow)
    residual.eliminate_zeros()
    reached = np.zeros(sink + 1, dtype=np.bool_)
    reached[breadth_first_order(residual, source, return_predecessors=False)] = True
    return reached[:source]
