"""Maximum matchings of many bipartite graphs at once, equal vertices merged first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching, maximum_flow

from sparsecomm.hashing import hash_rows
from sparsecomm.table import distinct, run_ids, run_starts, sort_order
from sparsecomm.typing import IntGlobal


@dataclass(frozen=True, slots=True, eq=False)
class Bipartite:
    """A disjoint union of bipartite graphs.

    Args:
        left, right: (num_edges,) int64, the ends of every edge, numbered from 0 without holes.
        left_group: (num_left,) int64, the graph that each left vertex belongs to.
        left_count, right_count: int64, how many equal vertices each vertex stands for.
    """

    left: IntGlobal
    right: IntGlobal
    left_group: IntGlobal
    left_count: IntGlobal
    right_count: IntGlobal


def matching_sizes(group: IntGlobal, row: IntGlobal, col: IntGlobal) -> IntGlobal:
    """Return the size of a maximum matching of each graph, int64, graphs in ascending order of their number.

    Args:
        group, row, col: (num_edges,); edge i joins `row[i]` and `col[i]` in graph `group[i]`. No edge twice.

    By Konig's theorem this is also the size of a minimum vertex cover of each.

    Source: Hopcroft and Karp 1973 (unit); Dinic 1970 on the quotient by equal neighbourhoods.
    """
    if group.size == 0:
        return np.zeros(0, dtype=np.int64)
    graph = _compact(group, row, col)
    left_class, left_count = _twin_classes(graph.left, graph.right, graph.left_group)
    right_class, right_count = _twin_classes(graph.right, graph.left, np.zeros(graph.right_count.size, np.int64))
    # Matching is faster per edge than flow, but does not come to an end where most vertices have twins (RadiX-Net).
    if 2 * (left_count.size + right_count.size) > graph.left_count.size + graph.right_count.size:
        return _per_group(_match(graph), graph.left_group)
    left, right = distinct([left_class[graph.left], right_class[graph.right]])
    left_group = np.empty(left_count.size, dtype=np.int64)
    left_group[left_class] = graph.left_group
    return _per_group(_flow(Bipartite(left, right, left_group, left_count, right_count)), left_group)


def _per_group(taken: IntGlobal, left_group: IntGlobal) -> IntGlobal:
    return np.bincount(_number([left_group]), weights=taken).astype(np.int64)


def _compact(group: IntGlobal, row: IntGlobal, col: IntGlobal) -> Bipartite:
    left, right = _number([row, group]), _number([col, group])
    left_group = np.empty(int(left.max()) + 1, dtype=np.int64)
    left_group[left] = group
    ones = np.ones(left_group.size, dtype=np.int64), np.ones(int(right.max()) + 1, dtype=np.int64)
    return Bipartite(left, right, left_group, *ones)


def _number(keys: list[npt.NDArray[Any]]) -> IntGlobal:
    """Return the rank of every row of `keys` among the distinct rows."""
    order = sort_order(keys)
    ids = np.empty(order.size, dtype=np.int64)
    ids[order] = run_ids(run_starts([key[order] for key in keys]))
    return ids


def _twin_classes(ends: IntGlobal, others: IntGlobal, group: IntGlobal) -> tuple[IntGlobal, IntGlobal]:
    """Return `vertex_to_class` and the size of every class of vertices with equal neighbourhoods.

    Neighbourhoods are compared by their size and a sum of 64-bit hashes. Merging twins on one side leaves the twins
    of the other side twins, so both sides can be classed on the graph as it came.
    """
    sums = np.zeros(group.size, dtype=np.uint64)
    np.add.at(sums, ends, hash_rows([others]))
    classes = _number([group, np.bincount(ends), sums.view(np.int64)])
    return classes, np.bincount(classes)


def _match(graph: Bipartite) -> IntGlobal:
    """Return for each left vertex 1 if a maximum matching covers it, else 0."""
    shape = (graph.left_count.size, graph.right_count.size)
    edges = coo_array((np.ones(graph.left.size, np.int8), (graph.left, graph.right)), shape=shape).tocsr()
    return (maximum_bipartite_matching(edges, perm_type="column") >= 0).astype(np.int64)


def _flow(graph: Bipartite) -> IntGlobal:
    """Return how many of the equal vertices behind each left vertex a maximum matching covers."""
    num_left, num_right = graph.left_count.size, graph.right_count.size
    source, sink = num_left + num_right, num_left + num_right + 1
    tail = np.concatenate([np.full(num_left, source), graph.left, num_left + np.arange(num_right)])
    head = np.concatenate([np.arange(num_left), num_left + graph.right, np.full(num_right, sink)])
    between = np.minimum(graph.left_count[graph.left], graph.right_count[graph.right])
    capacity = np.concatenate([graph.left_count, between, graph.right_count]).astype(np.int32)
    network: csr_array[Any] = coo_array((capacity, (tail, head)), shape=(sink + 1, sink + 1)).tocsr()
    flow = maximum_flow(network, source, sink).flow
    return np.asarray(flow[[source], :].toarray()).ravel()[:num_left].astype(np.int64)
