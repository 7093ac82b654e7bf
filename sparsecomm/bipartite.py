"""Maximum matchings and minimum covers of many bipartite graphs at once, leaves matched first."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import breadth_first_order

from sparsecomm.closure import maximum_closure
from sparsecomm.table import number
from sparsecomm.typing import Bools, IntGlobal, IntRank

_LEAF_PASSES: Final = 2  # a fixed number, so that a graph is covered alike beside others and alone


class Edges(NamedTuple):
    """The edges of a disjoint union of bipartite graphs; left and right vertices are numbered from 0 each."""

    left: IntGlobal
    right: IntGlobal

    def take(self, mask: Bools) -> Edges:
        index = np.flatnonzero(mask)
        return Edges(self.left[index], self.right[index])


class Pairs(NamedTuple):
    """The ends of the edges of a matching."""

    left: IntGlobal
    right: IntGlobal

    @staticmethod
    def concat(parts: list[Pairs]) -> Pairs:
        return Pairs(*(np.concatenate(side) for side in zip(*parts, strict=True)))


class Cover(NamedTuple):
    """A vertex cover of every graph.

    Args:
        by_left: (num_edges,) bool, the edges that only their left end covers.
        sizes: int64, vertices in the cover of each graph, graphs in ascending order of their number.
    """

    by_left: Bools
    sizes: IntGlobal


class Covers(NamedTuple):
    """All minimum vertex covers of every graph: a cover has one end of each matched edge.

    Args:
        edges: with vertices numbered from 0, all graphs together.
        always: (num_right,) bool, the right vertices that are in every minimum cover.
        pairs: matched edges of which some covers have the left end and some the right.
        sizes: int64, vertices in each cover of each graph.
    """

    edges: Edges
    always: Bools
    pairs: Pairs
    sizes: IntGlobal

    def cheapest(self, gain: IntGlobal) -> Bools:
        """Return a mask of the edges that only their left end covers, in the cheapest cover.

        Args:
            gain: (num_pairs,) what is saved by having the right end of each pair and not the left. Of equally cheap
                covers the one with fewest right vertices is taken.
        """
        place = np.full(self.always.size, -1, dtype=np.int64)
        place[self.pairs.right] = np.arange(gain.size)
        of_left = np.full(int(self.edges.left.max(initial=-1)) + 1, -1, dtype=np.int64)
        of_left[self.pairs.left] = np.arange(gain.size)
        tail, head = of_left[self.edges.left], place[self.edges.right]
        open_ = (tail >= 0) & (head >= 0)
        right = self.always.copy()
        right[self.pairs.right[maximum_closure(gain, tail[open_], head[open_])]] = True
        return ~right[self.edges.right]


def matching_sizes(group: IntGlobal | IntRank, row: IntGlobal, col: IntGlobal) -> IntGlobal:
    """Return the size of a maximum matching of each graph, int64, graphs in ascending order of their number.

    Args:
        group, row, col: (num_edges,); edge i joins `row[i]` and `col[i]` in graph `group[i]`. No edge twice.

    By Konig's theorem this is also the size of a minimum vertex cover of each.

    Source: Karp and Sipser 1981 (leaves), Hopcroft and Karp 1973.
    """
    graph, edges = _numbered(group, row, col)
    return _sizes(graph, edges, _maximum_matching(edges))


def minimum_cover(group: IntGlobal, row: IntGlobal, col: IntGlobal) -> Cover:
    """Return the minimum vertex cover of each graph that has as few columns as any; there is only one.

    It is the minimum cut nearest the source of the network source -> rows -> columns -> sink, so it is the same
    whichever maximum matching leads to it.

    Args:
        group, row, col: (num_edges,); edge i joins `row[i]` and `col[i]` in graph `group[i]`. No edge twice.

    Source: Konig 1931; Picard and Queyranne 1980 (the minimum cuts are ordered, so there is a nearest one).
    """
    graph, edges = _numbered(group, row, col)
    pairs = _maximum_matching(edges)
    return Cover(~_reached(edges, pairs)[edges.right], _sizes(graph, edges, pairs))


def greedy_cover(group: IntGlobal, row: IntGlobal, col: IntGlobal) -> Cover:
    """Return a small vertex cover of each graph, not always the smallest, in time linear in the edges.

    Args:
        group, row, col: (num_edges,); edge i joins `row[i]` and `col[i]` in graph `group[i]`. No edge twice.

    Source: Karp and Sipser 1981 (neighbours of leaves, which some minimum cover has), else the largest degree.
    """
    graph, edges = _numbered(group, row, col)
    left, right = (np.zeros(int(side.max(initial=-1)) + 1, dtype=np.bool_) for side in edges)
    core = edges
    for _ in range(_LEAF_PASSES):
        core = _take_hubs(core, core.left, core.right, right)
        core = _take_hubs(core, core.right, core.left, left)
    if core.left.size:
        _take_greedily(core, left, right)
    used = np.concatenate([_graph_of(graph, edges.left)[left], _graph_of(graph, edges.right)[right]])
    return Cover(~right[edges.right], np.bincount(used, minlength=int(graph.max(initial=-1)) + 1))


def _take_hubs(edges: Edges, leaf: IntGlobal, hub: IntGlobal, taken: Bools) -> Edges:
    """Mark the neighbours of vertices with one edge in `taken`, and return the edges without one of them."""
    taken[hub[np.flatnonzero((np.bincount(leaf) == 1)[leaf])]] = True
    return edges.take(~taken[hub])


def _take_greedily(edges: Edges, left: Bools, right: Bools) -> None:
    """Mark vertices in `left` and `right` until they cover all edges."""
    from sparsecomm.matching_loops import cover_greedily  # here, because it loads numba

    numbers = Edges(number([edges.left]), number([edges.right]))
    forward = _biadjacency(numbers)
    num_left, backward = forward.shape[0], forward.T.tocsr()
    indptr = np.concatenate([forward.indptr, backward.indptr[1:].astype(np.int64) + forward.nnz])
    indices = np.concatenate([forward.indices.astype(np.int64) + num_left, backward.indices])
    taken = cover_greedily(indptr, indices)
    left[_names(numbers.left, edges.left)[taken[:num_left]]] = True
    right[_names(numbers.right, edges.right)[taken[num_left:]]] = True


def _graph_of(graph: IntGlobal, vertex: IntGlobal) -> IntGlobal:
    """Return the graph of each vertex, given the graph and the vertex of each edge."""
    result = np.empty(int(vertex.max(initial=-1)) + 1, dtype=np.int64)
    result[vertex] = graph
    return result


def minimum_covers(group: IntGlobal, row: IntGlobal, col: IntGlobal) -> Covers:
    """Return what all minimum vertex covers of each graph have in common, and where they differ.

    Args:
        group, row, col: (num_edges,); edge i joins `row[i]` and `col[i]` in graph `group[i]`. No edge twice.

    Source: Dulmage and Mendelsohn 1958.
    """
    graph, edges = _numbered(group, row, col)
    pairs = _maximum_matching(edges)
    always = _reached(edges, pairs)
    never = _reached(Edges(edges.right, edges.left), Pairs(pairs.right, pairs.left))
    free = np.flatnonzero(~always[pairs.right] & ~never[pairs.left])
    return Covers(edges, always, Pairs(pairs.left[free], pairs.right[free]), _sizes(graph, edges, pairs))


def _numbered(group: IntGlobal | IntRank, row: IntGlobal, col: IntGlobal) -> tuple[IntGlobal, Edges]:
    graph = number([group])
    return graph, Edges(number([row, graph]), number([col, graph]))


def _sizes(graph: IntGlobal, edges: Edges, pairs: Pairs) -> IntGlobal:
    if graph.size == 0:
        return np.zeros(0, dtype=np.int64)
    graph_of = np.empty(int(edges.left.max()) + 1, dtype=np.int64)
    graph_of[edges.left] = graph
    return np.bincount(graph_of[pairs.left], minlength=int(graph.max()) + 1)


def _reached(edges: Edges, pairs: Pairs) -> Bools:
    """Return a mask of the right vertices that alternating paths reach from the left ones without a partner."""
    if edges.left.size == 0:
        return np.zeros(0, dtype=np.bool_)
    forward = _biadjacency(edges)
    num_left, num_right = forward.shape
    free = np.ones(num_left, dtype=np.bool_)
    free[pairs.left] = False
    mate = np.full(num_right, -1, dtype=np.int64)
    mate[pairs.right] = pairs.left
    back, starts = mate[mate >= 0], np.flatnonzero(free)
    indices = np.concatenate([forward.indices + num_left, back, starts])
    ends = (np.cumsum(mate >= 0) + forward.nnz, [indices.size])
    indptr = np.concatenate([forward.indptr, *ends])
    num_vertices = num_left + num_right + 1
    residual = csr_array((np.ones(indices.size), indices, indptr), shape=(num_vertices, num_vertices))
    order = breadth_first_order(residual, num_left + num_right, return_predecessors=False)
    reached = np.zeros(num_right, dtype=np.bool_)
    reached[order[(order >= num_left) & (order < num_left + num_right)] - num_left] = True
    return reached


def _biadjacency(edges: Edges) -> csr_array[Any]:
    ones = np.ones(edges.left.size, dtype=np.int8)
    return coo_array((ones, (edges.left, edges.right))).tocsr()


def _maximum_matching(edges: Edges) -> Pairs:
    core, parts = _match_leaves(edges)
    if core.left.size:
        parts.append(_match_core(core))
    return Pairs.concat(parts)


def _match_leaves(edges: Edges) -> tuple[Edges, list[Pairs]]:
    """Match vertices that have a leaf to one of their leaves until few are left.

    Some maximum matching does so, whatever the rest of the graph is like.

    Returns:
        The edges that touch none of these vertices, and the matched pairs.
    """
    nothing = np.empty(0, dtype=np.int64)
    parts = [Pairs(nothing, nothing)]
    before = 2 * edges.left.size
    while edges.left.size and 10 * edges.left.size < 9 * before:
        before = edges.left.size
        edges, left, right = _match_leaves_of(edges, edges.left, edges.right)
        parts.append(Pairs(left, right))
        if edges.left.size:
            edges, right, left = _match_leaves_of(edges, edges.right, edges.left)
            parts.append(Pairs(left, right))
    return edges, parts


def _match_leaves_of(edges: Edges, leaf: IntGlobal, hub: IntGlobal) -> tuple[Edges, IntGlobal, IntGlobal]:
    ends = np.flatnonzero((np.bincount(leaf) == 1)[leaf])
    leaf_of = np.full(int(hub.max()) + 1, -1, dtype=np.int64)
    leaf_of[hub[ends]] = leaf[ends]
    hubs = np.flatnonzero(leaf_of >= 0)
    return edges.take(leaf_of[hub] < 0), leaf_of[hubs], hubs


def _match_core(edges: Edges) -> Pairs:
    """Return a maximum matching."""
    # Here, because it loads numba. Not scipy's: on RadiX-Net of 1,024 neurons on 3 ranks it does not come to an end.
    from sparsecomm.matching_loops import match

    left, right = number([edges.left]), number([edges.right])
    matrix = _biadjacency(Edges(left, right))
    mate = match(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64), matrix.shape[1])
    matched = np.flatnonzero(mate >= 0)
    return Pairs(_names(left, edges.left)[matched], _names(right, edges.right)[mate[matched]])


def _names(numbers: IntGlobal, names: IntGlobal) -> IntGlobal:
    """Return the name of each number."""
    result = np.empty(int(numbers.max()) + 1, dtype=np.int64)
    result[numbers] = names
    return result
