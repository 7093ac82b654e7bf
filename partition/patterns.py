"""Rows with equal, and with nearly equal, columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_array

from sparsecomm.hashing import hash_rows
from sparsecomm.table import number
from sparsecomm.typing import IntGlobal

_ALIKE = 0.8


def pattern_classes(pattern: csr_array[Any]) -> IntGlobal:
    """Return the class of every row, counted from 0: rows of a class have the same columns."""
    hashes = hash_rows([np.arange(pattern.shape[1])])[pattern.indices]
    sums = _by_row(np.add, hashes, pattern.indptr, np.uint64(0))
    return number([sums.view(np.int64), np.diff(pattern.indptr)])


def near_classes(pattern: csr_array[Any], seed: int) -> IntGlobal:
    """Return a class for every row: its rows share at least 0.8 of their columns with the first of them.

    Rows whose two least hashes agree are compared; alike rows agree in both with the square of their likeness.

    Source: Broder 1997, min-wise hashing; the likeness is that of Jaccard.
    """
    least = [_least_hash(pattern, 2 * seed + which) for which in (1, 2)]
    bucket = number([*least, np.diff(pattern.indptr) == 0])
    first = np.full(int(bucket.max(initial=-1)) + 1, pattern.shape[0], dtype=np.int64)
    np.minimum.at(first, bucket, np.arange(bucket.size))
    leader = first[bucket]
    others = np.flatnonzero(leader != np.arange(leader.size))
    alone = others[_likeness(pattern, others, leader[others]) < _ALIKE]
    leader[alone] = alone
    return number([leader])


def _least_hash(pattern: csr_array[Any], salt: int) -> IntGlobal:
    columns = np.arange(pattern.shape[1])
    hashes = hash_rows([columns, np.full(columns.size, salt)])[pattern.indices] >> np.uint64(1)
    return np.asarray(_by_row(np.minimum, hashes, pattern.indptr, np.uint64(0)).view(np.int64))


def _likeness(pattern: csr_array[Any], rows: IntGlobal, others: IntGlobal) -> Any:
    """Return |common columns| / |columns of either| of `rows[i]` and `others[i]`."""
    ones = csr_array((np.ones(pattern.nnz, np.int32), pattern.indices, pattern.indptr), shape=pattern.shape)
    common: Any = (ones[rows] * ones[others]).sum(axis=1)
    counts = np.diff(pattern.indptr)
    return common / np.maximum(counts[rows] + counts[others] - common, 1)


def _by_row(ufunc: np.ufunc, values: Any, indptr: Any, empty: Any) -> Any:
    """Reduce `values` over every row; a row without values gets `empty`."""
    result = np.full(indptr.size - 1, empty)
    filled = np.flatnonzero(np.diff(indptr))
    if filled.size:
        result[filled] = ufunc.reduceat(values, indptr[filled])
    return result
