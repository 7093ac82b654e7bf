"""Maximum matchings of many bipartite graphs at once, leaves matched and equal vertices merged first."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching, maximum_flow

from sparsecomm.hashing import hash_rows
from sparsecomm.table import distinct, number, run_starts
from sparsecomm.typing import Bools, IntGlobal


class Edges(NamedTuple):
    """The edges of a disjoint union of bipartite graphs, vertices and graphs numbered from 0."""

    graph: IntGlobal
    left: IntGlobal
    right: IntGlobal

    def take(self, index: Bools) -> Edges:
        return Edges(*(column[index] for column in self))

    def compact(self) -> Edges:
        """Number the vertices without holes."""
        return Edges(self.graph, number([self.left]), number([self.right]))


def matching_sizes(group: IntGlobal, row: IntGlobal, col: IntGlobal) -> IntGlobal:
    """Return the size of a maximum matching of each graph, int64, graphs in ascending order of their number.

    Args:
        group, row, col: (num_edges,); edge i joins `row[i]` and `col[i]` in graph `group[i]`. No edge twice.

    By Konig's theorem this is also the size of a minimum vertex cover of each.

    Source: Karp and Sipser 1981 (leaves), Hopcroft and Karp 1973 (unit), Dinic 1970 on the quotient by equal
    neighbourhoods.
    """
    if group.size == 0:
        return np.zeros(0, dtype=np.int64)
    graph = number([group])
    num_graphs = int(graph.max()) + 1
    edges, graphs = _match_leaves(Edges(graph, number([row, graph]), number([col, graph])))
    sizes = np.bincount(graphs, minlength=num_graphs)
    if edges.graph.size:
        sizes += _core_sizes(edges.compact(), num_graphs)
    return sizes


def _match_leaves(edges: Edges) -> tuple[Edges, IntGlobal]:
    """Match vertices that have a leaf to one of their leaves until few are left.

    Some maximum matching does so, whatever the rest of the graph is like.

    Returns:
        The edges that touch none of these vertices, and the graph of every matched pair.
    """
    matched = [np.empty(0, dtype=np.int64)]
    before = 2 * edges.graph.size
    while edges.graph.size and 10 * edges.graph.size < 9 * before:
        before = edges.graph.size
        for leaf, hub in ((1, 2), (2, 1)):
            if edges.graph.size:
                edges, graphs = _match_leaves_of(edges, edges[leaf], edges[hub])
                matched.append(graphs)
    return edges, np.concatenate(matched)


def _match_leaves_of(edges: Edges, leaf: IntGlobal, hub: IntGlobal) -> tuple[Edges, IntGlobal]:
    ends = np.bincount(leaf)[leaf] == 1
    graph_of = np.full(int(hub.max()) + 1, -1, dtype=np.int64)
    graph_of[hub[ends]] = edges.graph[ends]
    return edges.take(graph_of[hub] < 0), graph_of[graph_of >= 0]


def _core_sizes(edges: Edges, num_graphs: int) -> IntGlobal:
    """Return the size of a maximum matching of each graph, by whichever method comes to an end."""
    hashes = _neighbour_hashes(edges.left, edges.right), _neighbour_hashes(edges.right, edges.left)
    num_classes = sum(np.count_nonzero(run_starts([np.sort(side)])) for side in hashes)
    graph_of = np.empty(hashes[0].size, dtype=np.int64)
    graph_of[edges.left] = edges.graph
    # Matching is faster per edge than flow, but does not come to an end where most vertices have twins (RadiX-Net).
    if 2 * num_classes > sum(side.size for side in hashes):
        return np.bincount(graph_of[_covered(edges)], minlength=num_graphs)
    left_class, right_class = (
        number([hashes[0], np.bincount(edges.left)]),
        number([hashes[1], np.bincount(edges.right)]),
    )
    left, right = distinct([left_class[edges.left], right_class[edges.right]])
    taken = _flow(left, right, np.bincount(left_class), np.bincount(right_class))
    class_graph = np.empty(taken.size, dtype=np.int64)
    class_graph[left_class] = graph_of
    return np.bincount(class_graph, taken, num_graphs).astype(np.int64)


def _neighbour_hashes(ends: IntGlobal, others: IntGlobal) -> IntGlobal:
    """Return the sum of 64-bit hashes of the neighbours of every vertex; vertices with the same neighbours are twins.

    Merging twins on one side leaves the twins of the other side twins, so both sides can be classed on the graph as
    it came.
    """
    sums = np.zeros(int(ends.max()) + 1, dtype=np.uint64)
    np.add.at(sums, ends, hash_rows([np.arange(int(others.max()) + 1)])[others])
    return sums.view(np.int64)


def _covered(edges: Edges) -> Bools:
    """Return a mask of the left vertices that a maximum matching covers."""
    ones = np.ones(edges.left.size, dtype=np.int8)
    matrix = coo_array((ones, (edges.left, edges.right))).tocsr()
    return np.asarray(maximum_bipartite_matching(matrix, perm_type="column") >= 0)


def _flow(left: IntGlobal, right: IntGlobal, left_count: IntGlobal, right_count: IntGlobal) -> IntGlobal:
    """Return how many of the equal vertices behind each left vertex a maximum matching covers.

    Args:
        left, right: the ends of every edge.
        left_count, right_count: how many equal vertices each vertex stands for.
    """
    num_left, num_right = left_count.size, right_count.size
    source, sink = num_left + num_right, num_left + num_right + 1
    tail = np.concatenate([np.full(num_left, source), left, num_left + np.arange(num_right)])
    head = np.concatenate([np.arange(num_left), num_left + right, np.full(num_right, sink)])
    between = np.minimum(left_count[left], right_count[right])
    capacity = np.concatenate([left_count, between, right_count]).astype(np.int32)
    network: csr_array[Any] = coo_array((capacity, (tail, head)), shape=(sink + 1, sink + 1)).tocsr()
    flow = maximum_flow(network, source, sink).flow
    return np.asarray(flow[[source], :].toarray()).ravel()[:num_left].astype(np.int64)
