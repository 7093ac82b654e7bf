"""Partitioners that keep an order of the rows: `block`, `nnz` and `rcm`."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import reverse_cuthill_mckee

from sparsecomm.layout import Layout, Layouts
from sparsecomm.partition.columns import with_columns
from sparsecomm.partition.request import Request
from sparsecomm.partition.structure import Structure
from sparsecomm.topology import Topology
from sparsecomm.typing import Floats, IntGlobal, IntRank


def partition_block(matrix: csr_array[Any], topology: Topology, request: Request) -> Layouts:
    """Split rows and columns like `numpy.array_split`, or by the weights; nothing is renumbered."""
    rows, cols = (_block(size, topology, request) for size in matrix.shape)
    return Layouts(rows, rows if matrix.shape[0] == matrix.shape[1] else cols)


def _block(size: int, topology: Topology, request: Request) -> Layout:
    if not request.weights:
        return Layout.block(size, topology.num_ranks)
    ends = np.rint(np.cumsum(request.shares(topology)) * size).astype(np.int64)
    return Layout(np.concatenate([[0], ends]))


def partition_nnz(matrix: csr_array[Any], topology: Topology, request: Request) -> Layouts:
    """Cut the rows where they are so that the most loaded rank has as few nonzeros as contiguous rows allow."""
    owners = cut_in_order(np.diff(matrix.indptr).astype(np.int64), request.shares(topology))
    return with_columns(matrix, owners, topology, request.shares(topology))


def partition_rcm(matrix: csr_array[Any], topology: Topology, request: Request) -> Layouts:
    """Order the rows so that neighbours are near, then cut as `nnz` does.

    Source: Cuthill and McKee 1969, reversed by George 1971.
    """
    structure = Structure.of(matrix)
    order = reverse_cuthill_mckee(structure.graph(), symmetric_mode=True)
    order = order[order < matrix.shape[0]].astype(np.int64)
    owners = np.empty(matrix.shape[0], dtype=np.int32)
    owners[order] = cut_in_order(np.diff(matrix.indptr)[order].astype(np.int64), request.shares(topology))
    return with_columns(matrix, owners, topology, request.shares(topology))


def cut_in_order(loads: IntGlobal, shares: Floats) -> IntRank:
    """Give consecutive rows to consecutive ranks; the largest load over share is the least there is.

    Returns:
        (num_rows,) int32, never falling.

    Source: bisection of the bottleneck value, Pinar and Aykanat 2004.
    """
    # As floats, since searching integers for a float copies them; exact up to 2**53 nonzeros.
    sums = np.concatenate([[0.0], np.cumsum(loads)])
    low, high = 0.0, float(sums[-1]) + float(loads.max(initial=0)) / float(shares[shares > 0].min())
    for _ in range(60):
        middle = (low + high) / 2
        reaches = _ends(sums, shares, middle)[-1] == loads.size
        low, high = (low, middle) if reaches else (middle, high)
    ends = _ends(sums, shares, high)
    ends[int(np.flatnonzero(shares > 0)[-1]) :] = loads.size
    return np.repeat(np.arange(shares.size, dtype=np.int32), np.diff(ends, prepend=0))


def _ends(sums: Floats, shares: Floats, bottleneck: float) -> IntGlobal:
    """Return the end of the rows of each rank if every rank takes all that `bottleneck` times its share allows."""
    ends = np.zeros(shares.size, dtype=np.int64)
    end = 0
    for rank, share in enumerate(shares.tolist()):
        if share > 0:
            end = int(np.searchsorted(sums, sums[end] + bottleneck * share, side="right")) - 1
        ends[rank] = end
    return ends
