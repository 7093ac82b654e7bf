"""Partitioner `streaming`: one pass over the rows, memory for one number per row."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from sparsecomm.layout import Layout, Layouts
from sparsecomm.partition.request import Request
from sparsecomm.topology import Topology
from sparsecomm.typing import IntGlobal, IntRank

_BLOCK = 1 << 16


def partition_streaming(matrix: csr_array[Any], topology: Topology, request: Request) -> Layouts:
    """Look at each row once, in the order they are stored."""
    return partition_stream(_blocks(matrix), matrix.shape, matrix.nnz, topology, request)


def partition_stream(
    blocks: Iterable[csr_array[Any]], shape: tuple[int, int], nnz: int, topology: Topology, request: Request
) -> Layouts:
    """Partition a matrix that comes in blocks of rows, each looked at once.

    Args:
        blocks: (some rows, all columns), in order.
        shape, nnz: of the whole.
        topology, request: as for every partitioner.

    Source: linear deterministic greedy of Stanton and Kliot 2012, on nodes and then on ranks.
    """
    from sparsecomm.partition._stream import place_rows

    square = shape[0] == shape[1]
    col_to_rank = np.full(shape[1], -1, dtype=np.int32)
    row_to_rank = col_to_rank if square else np.empty(shape[0], dtype=np.int32)
    tree = _Tree(topology, request, nnz)
    first_row = 0
    for block in blocks:
        indptr = block.indptr.astype(np.int64)
        place_rows(first_row, indptr, block.indices, square, row_to_rank, col_to_rank, *tree.arrays())
        first_row += block.shape[0]
    if not square:
        _fill(col_to_rank, request.shares(topology))
    rows, cols = tree.to_rank(row_to_rank), tree.to_rank(col_to_rank)
    owned = Layout.from_owners(rows, topology.num_ranks)
    return Layouts(owned, owned if square else Layout.from_owners(cols, topology.num_ranks))


class _Tree:
    """Loads and limits of ranks, numbered so that those of a node follow each other, and of nodes."""

    def __init__(self, topology: Topology, request: Request, nnz: int) -> None:
        shares = request.shares(topology)
        self._order = np.argsort(topology.rank_to_node, kind="stable").astype(np.int32)
        self._node = topology.rank_to_node[self._order]
        self._first = np.searchsorted(self._node, np.arange(topology.num_nodes + 1)).astype(np.int32)
        in_node = np.bincount(self._node, shares[self._order])
        allowed = request.balance - 1
        self._rank_limits = np.floor(shares[self._order] * nnz * (1 + allowed)).astype(np.int64)
        self._node_limits = np.floor(in_node * nnz * (1 + 0.6 * allowed)).astype(np.int64)
        self._rank_loads = np.zeros_like(self._rank_limits)
        self._node_loads = np.zeros_like(self._node_limits)

    def arrays(self) -> tuple[IntRank, IntRank, IntGlobal, IntGlobal, IntGlobal, IntGlobal]:
        return (
            self._node, self._first, self._rank_loads, self._rank_limits, self._node_loads, self._node_limits,
        )  # fmt: skip

    def to_rank(self, place: IntRank) -> IntRank:
        return np.asarray(self._order[place])


def _fill(col_to_rank: IntRank, shares: Any) -> None:
    """Spread the columns that no row uses."""
    unused = np.flatnonzero(col_to_rank < 0)
    used = np.flatnonzero(shares > 0)
    col_to_rank[unused] = used[np.arange(unused.size) * used.size // max(unused.size, 1)]


def _blocks(matrix: csr_array[Any]) -> Iterable[csr_array[Any]]:
    for first in range(0, matrix.shape[0], _BLOCK):
        yield matrix[first : first + _BLOCK]
