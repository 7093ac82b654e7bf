"""Orders of rows that make blocks of rows share columns: fewer rows of X to stage, or to bring to a cache."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import reverse_cuthill_mckee

from sparsecomm.errors import InputError
from sparsecomm.typing import IntGlobal

_SWAPS: Final = 20  # tried for every row
_TABLE_ENTRIES: Final = 1 << 28  # of the table that annealing keeps: blocks x columns, 4 bytes each


def reorder_rows(matrix: csr_array[Any], method: str, *, block_rows: int = 256, seed: int = 0) -> IntGlobal:
    """Return an order of the rows, `order[new] = old`, that lowers the footprints of blocks.

    Args:
        matrix: (m, n).
        method: `none`; `rcm`, for square matrices; `twins`: rows with equal columns side by side, groups in the order
            of their columns; `anneal`: from the best of the others, rows change places as long as it pays.
        block_rows: rows of a block.
        seed: of what is drawn.

    Raises:
        InputError: there is no such method, or the matrix does not suit it.
    """
    if method not in METHODS:
        raise InputError(f"no method {method!r} of reordering rows; there are {', '.join(METHODS)}")
    return METHODS[method](matrix, block_rows, seed)


def total_footprint(matrix: csr_array[Any], order: IntGlobal, block_rows: int = 256) -> int:
    """Return the distinct columns of every block of rows, summed over the blocks."""
    block = np.empty(matrix.shape[0], dtype=np.int64)
    block[order] = np.arange(matrix.shape[0]) // block_rows
    return np.unique(np.repeat(block, np.diff(matrix.indptr)) * matrix.shape[1] + matrix.indices).size


def footprint_bound(matrix: csr_array[Any], block_rows: int = 256) -> int:
    """Return a number of columns that no order of the rows gets below, summed over the blocks.

    A column with d nonzeros is in at least d / block_rows blocks; and a block has at least the columns of its longest
    row, where the longest rows share blocks at best.
    """
    per_column = np.bincount(matrix.indices, minlength=matrix.shape[1])
    longest = np.sort(np.diff(matrix.indptr))[::-1][::block_rows]
    return max(int((-(-per_column // block_rows)).sum()), int(longest.sum()))


def _none(matrix: csr_array[Any], block_rows: int, seed: int) -> IntGlobal:
    return np.arange(matrix.shape[0], dtype=np.int64)


def _rcm(matrix: csr_array[Any], block_rows: int, seed: int) -> IntGlobal:
    """Source: Cuthill and McKee 1969, reversed."""
    if matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"rcm reorders square matrices, not {matrix.shape[0]} x {matrix.shape[1]}; take twins")
    pattern = csr_array((np.ones(matrix.nnz, np.int8), matrix.indices, matrix.indptr), shape=matrix.shape)
    return reverse_cuthill_mckee((pattern + pattern.T).tocsr(), symmetric_mode=True).astype(np.int64)


def _twins(matrix: csr_array[Any], block_rows: int, seed: int) -> IntGlobal:
    """Sort rows by their first column, then by a hash of all: rows with equal columns come to lie side by side."""
    rng = np.random.default_rng(seed)
    weight = rng.integers(0, 1 << 40, matrix.shape[1])
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    hashed = np.bincount(row, weights=weight[matrix.indices].astype(np.float64), minlength=matrix.shape[0])
    filled = np.flatnonzero(np.diff(matrix.indptr))
    first = np.full(matrix.shape[0], matrix.shape[1], dtype=np.int64)
    first[filled] = np.minimum.reduceat(matrix.indices, matrix.indptr[filled]) if filled.size else 0
    return np.lexsort((np.arange(matrix.shape[0]), hashed, first))


def _anneal(matrix: csr_array[Any], block_rows: int, seed: int) -> IntGlobal:
    """Swap rows of two blocks, drawn at random; worse is taken too, with a chance that falls.

    Source: Kirkpatrick, Gelatt, Vecchi 1983.
    """
    starts = [_none, _twins, *([_rcm] if matrix.shape[0] == matrix.shape[1] else [])]
    orders = [start(matrix, block_rows, seed) for start in starts]
    order = min(orders, key=lambda one: total_footprint(matrix, one, block_rows))
    num_blocks = -(-matrix.shape[0] // block_rows)
    if num_blocks * matrix.shape[1] > _TABLE_ENTRIES:
        raise InputError(f"anneal keeps {num_blocks} blocks x {matrix.shape[1]} columns: too many; take twins or rcm")
    if num_blocks < 2:
        return order
    from sparsecomm.kernels.reorder_loops import anneal

    users = csr_array((np.ones(matrix.nnz, np.int8), matrix.indices, matrix.indptr), shape=matrix.shape).tocsc()
    steps = _SWAPS * matrix.shape[0]
    found = anneal(matrix.indptr, matrix.indices, users.indptr, users.indices, order, block_rows, steps, seed)
    return min((order, found), key=lambda one: total_footprint(matrix, one, block_rows))


METHODS: Final = {"none": _none, "rcm": _rcm, "twins": _twins, "anneal": _anneal}
