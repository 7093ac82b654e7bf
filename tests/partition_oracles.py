"""What layouts make move, counted with sets and networkx."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import networkx as nx
import numpy as np
from scipy.sparse import csr_array

from sparsecomm.layout import Layout, Layouts


def owners(layout: Layout) -> list[int]:
    """Return the owner of every row in original numbering."""
    new = np.arange(layout.num_rows) if layout.old_to_new is None else layout.old_to_new
    return [int(np.flatnonzero(layout.offsets <= row)[-1]) for row in new]


def crossing(matrix: csr_array[Any], layouts: Layouts, group: list[int]) -> dict[tuple[int, int], set[tuple[int, int]]]:
    """Return the nonzeros between groups, by (group of the column, group of the row)."""
    rows, cols = owners(layouts.rows), owners(layouts.cols)
    found = defaultdict(set)
    for i, j in zip(*matrix.nonzero(), strict=True):
        if group[rows[i]] != group[cols[j]]:
            found[group[cols[j]], group[rows[i]]].add((int(i), int(j)))
    return found


def gather_rows(pairs: dict[tuple[int, int], set[tuple[int, int]]]) -> int:
    return len({(dst, j) for (_, dst), edges in pairs.items() for _, j in edges})


def reduce_rows(pairs: dict[tuple[int, int], set[tuple[int, int]]]) -> int:
    return len({(src, i) for (src, _), edges in pairs.items() for i, _ in edges})


def cover_rows(pairs: dict[tuple[int, int], set[tuple[int, int]]]) -> int:
    return sum(matching(edges) for edges in pairs.values())


def matching(edges: set[tuple[int, int]]) -> int:
    graph = nx.Graph()
    graph.add_edges_from((("row", i), ("col", j)) for i, j in edges)
    return len(nx.bipartite.maximum_matching(graph, [v for v in graph if v[0] == "row"])) // 2


def loads(matrix: csr_array[Any], layouts: Layouts) -> list[int]:
    """Return the nonzeros of every rank."""
    result = [0] * layouts.rows.num_ranks
    for row, owner in enumerate(owners(layouts.rows)):
        result[owner] += int(matrix.indptr[row + 1] - matrix.indptr[row])
    return result
