"""What cannot be kept is said before and after, with the numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_array

from sparsecomm.errors import InputError
from sparsecomm.layout import Layouts
from sparsecomm.partition.request import Request
from sparsecomm.topology import Topology
from sparsecomm.typing import IntGlobal


def check_feasible(matrix: csr_array[Any], topology: Topology, request: Request) -> None:
    """Refuse limits that no layout can keep.

    Raises:
        InputError: all ranks together, or the rank with the heaviest row, have too little memory; or the weights are
            for another number of ranks.
    """
    used = int(np.count_nonzero(request.shares(topology)))
    if not request.memory_bytes:
        return
    square = matrix.shape[0] == matrix.shape[1]
    counts = np.diff(matrix.indptr).astype(np.int64)
    rows = request.bytes_of(np.full(counts.size, 2 if square else 1), counts)
    total = _total(matrix, request)
    if total > used * request.memory_bytes:
        raise InputError(
            f"the matrix with X and Y takes {total:,} bytes, but {used} ranks of {request.memory_bytes:,} bytes have "
            f"{used * request.memory_bytes:,}; use {-(-total // request.memory_bytes)} ranks or more"
        )
    if rows.size and int(rows.max()) > request.memory_bytes:
        raise InputError(
            f"row {int(rows.argmax())} alone takes {int(rows.max()):,} bytes, but a rank has {request.memory_bytes:,}"
        )


def check_memory(matrix: csr_array[Any], layouts: Layouts, topology: Topology, request: Request) -> None:
    """Refuse a layout that does not fit the memory of a rank.

    Raises:
        InputError: with the fullest rank.
    """
    if not request.memory_bytes:
        return
    held = rank_bytes(matrix, layouts, request)
    if held.max() > request.memory_bytes:
        raise InputError(
            f"rank {int(held.argmax())} would hold {int(held.max()):,} bytes of {request.memory_bytes:,} "
            f"(mean {int(held.mean()):,}); allow more memory, a larger balance, or try another method"
        )


def rank_bytes(matrix: csr_array[Any], layouts: Layouts, request: Request) -> IntGlobal:
    """Return what each rank holds of the matrix, of X and of Y, ghosts left out, (num_ranks,) int64."""
    nnz = np.bincount(row_owners(layouts), np.diff(matrix.indptr), layouts.rows.num_ranks).astype(np.int64)
    return request.bytes_of(layouts.rows.counts + layouts.cols.counts, nnz)


def row_owners(layouts: Layouts) -> IntGlobal:
    """Return the owner of every row in original numbering."""
    return np.asarray(layouts.rows.owners()[layouts.rows.to_all()])


def _total(matrix: csr_array[Any], request: Request) -> int:
    rows = np.array([sum(matrix.shape)], dtype=np.int64)
    return int(request.bytes_of(rows, np.array([matrix.nnz], dtype=np.int64))[0])
