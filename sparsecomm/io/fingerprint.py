"""A 64-bit fingerprint of the structure of a matrix, which ranks can compute in parts and add."""

from __future__ import annotations

import numpy as np

from sparsecomm.hashing import hash_rows
from sparsecomm.io.csr import Indices, Matrix

_BLOCK = 1 << 18  # nonzeros hashed at a time, so that the temporaries stay in the cache


def matrix_fingerprint(matrix: Matrix) -> str:
    """Return 16 hex digits that depend on the shape and on the places of the nonzeros, not on their values.

    Args:
        matrix: canonical CSR, as `read_matrix` returns it: a place stored twice would count twice.

    >>> from scipy.sparse import eye_array
    >>> matrix_fingerprint(eye_array(3).tocsr()) == matrix_fingerprint(2 * eye_array(3).tocsr())
    True
    """
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return fingerprint(matrix.shape, structure_hash(rows, matrix.indices))


def structure_hash(rows: Indices, cols: Indices) -> np.uint64:
    """Return the sum modulo 2**64 of a hash of each nonzero; sums over disjoint parts of a matrix add up.

    Args:
        rows, cols: (num_nonzeros,) global places, in the original numbering and in any order.
    """
    total = np.zeros(1, dtype=np.uint64)
    for start in range(0, rows.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        total += np.add.reduce(hash_rows([rows[part], cols[part]]))
    return np.uint64(total[0])


def fingerprint(shape: tuple[int, int], hash_sum: np.uint64) -> str:
    """Return the 16 hex digits for a whole matrix, given the sum of the hashes of all its nonzeros."""
    columns = [np.array([number], dtype=np.uint64) for number in (*shape, hash_sum)]
    return f"{int(hash_rows(columns)[0]):016x}"
