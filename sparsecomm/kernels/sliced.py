"""A matrix for products with one vector: rows of about equal length side by side, one in each lane of a register."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from sparsecomm.kernels import frame
from sparsecomm.kernels.compiling import one_process
from sparsecomm.kernels.walk import Walk

Dense = npt.NDArray[Any]

_REGISTER_BYTES: Final = 64
# Rows that are sorted by length: few keep neighbours together, and more are taken until there is little padding.
_WINDOWS: Final = (1 << 12, 1 << 16, 1 << 62)
_PADDING: Final = 1.03
_PARTS: Final = 4  # for each thread
_SHORT: Final = 1 << 16  # columns that 16 bits number


class Sliced:
    """Slices of as many rows as a register has lanes; entry t of all its rows lies side by side.

    Every lane adds the products of its row in CSR order, so the sums have scipy's bits. Padding is masked, not added.
    Columns are numbered by 16 bits where these are enough, from the first of a slice if need be, and a value that all
    nonzeros share is kept once: what a product with a vector takes is the time to read the matrix.

    Args:
        matrix: (m, n), of float32 or float64.
        uniform: whether all values are the same.

    Source: SELL-C-sigma of Kreutzer, Hager, Wellein, Fehske, Bishop 2014.
    """

    @staticmethod
    def can_be() -> bool:
        """Say whether this processor gathers by AVX-512."""
        from sparsecomm.kernels.form import vector_unit

        return vector_unit()[0] == _REGISTER_BYTES

    @staticmethod
    def suits(matrix: csr_array[Any]) -> bool:
        """Say whether this processor gathers by AVX-512, and 32 bits number the rows and columns."""
        return Sliced.can_be() and max(matrix.shape) < 2**31

    def __init__(self, matrix: csr_array[Any], uniform: bool = False) -> None:
        self._uniform, self._walks = uniform, dict[int, Walk]()
        self._lanes, rows = _REGISTER_BYTES // matrix.dtype.itemsize, matrix.shape[0]
        for window in _WINDOWS:
            self._sort_rows(np.diff(matrix.indptr), window)
            if self._starts[-1] <= _PADDING * matrix.nnz or window >= rows:
                break
        self._place = np.empty(rows, np.int64)
        self._place[self._rows[:rows]] = self._starts[np.arange(rows) // self._lanes] + np.arange(rows) % self._lanes
        self._indices = self._filled(matrix, self._short_columns(matrix))
        self._data: Dense = matrix.data[:1].copy() if uniform else self._filled(matrix, matrix.data)

    def _sort_rows(self, lengths: npt.NDArray[Any], window: int) -> None:
        """Group the rows into slices, longest first among each `window` of them."""
        order = np.lexsort((-lengths, np.arange(lengths.size) // window))
        num_slices = -(-lengths.size // self._lanes)
        self._rows = np.full(num_slices * self._lanes, -1, np.int32)
        self._lengths = np.zeros(self._rows.size, np.int32)
        self._rows[: lengths.size], self._lengths[: lengths.size] = order, lengths[order]
        by_slice = self._lengths.reshape(num_slices, self._lanes)
        self._full = by_slice.min(axis=1).astype(np.int64)
        self._starts = np.concatenate([[0], np.cumsum(by_slice.max(axis=1), dtype=np.int64)]) * self._lanes

    def _short_columns(self, matrix: csr_array[Any]) -> npt.NDArray[np.uint16 | np.uint32]:
        """Return the columns, counted from the first of each slice where this lets 16 bits number them."""
        self._firsts = np.zeros(self._full.size, np.int64)
        if matrix.shape[1] <= _SHORT:
            return matrix.indices.astype(np.uint16)
        lengths = np.diff(matrix.indptr)
        slice_of_row = np.empty(lengths.size, np.int64)
        slice_of_row[self._rows[: lengths.size]] = np.arange(lengths.size) // self._lanes
        filled = np.flatnonzero(lengths)
        begins, firsts, lasts = matrix.indptr[filled], np.full_like(self._firsts, matrix.shape[1]), self._firsts.copy()
        np.minimum.at(firsts, slice_of_row[filled], np.minimum.reduceat(matrix.indices, begins))
        np.maximum.at(lasts, slice_of_row[filled], np.maximum.reduceat(matrix.indices, begins))
        if (lasts - firsts).max(initial=0) >= _SHORT:
            return matrix.indices.astype(np.uint32)
        self._firsts = np.minimum(firsts, matrix.shape[1] - 1)  # of a slice without nonzeros too
        counted: Dense = matrix.indices - np.repeat(self._firsts[slice_of_row], lengths)
        return counted.astype(np.uint16)

    def _filled(self, matrix: csr_array[Any], entries: Dense) -> Dense:
        from sparsecomm.kernels.slice_loops import fill_slices

        result = np.zeros(int(self._starts[-1]), entries.dtype)
        fill_slices(matrix.indptr, self._place, self._lanes, entries, result)
        return result

    @property
    def entry_bytes(self) -> int:
        """Bytes of value and column of a nonzero."""
        return self._indices.itemsize + (0 if self._uniform else self._data.itemsize)

    @property
    def padding(self) -> float:
        """Entries with padding over entries without."""
        return self._indices.size / max(1, int(self._lengths.sum()))

    def multiply(self, x: Dense, out: Dense, threads: int, *, keep: bool = False) -> None:
        """Compute `out = matrix @ x`, or add to `out`; both are vectors, or of one column."""
        walk = self._walks.get(threads)
        if walk is None:
            with one_process():
                walk = self._walks[threads] = self._walk(threads)
        walk.run(x, out, keep)

    def _walk(self, threads: int) -> Walk:
        from sparsecomm.kernels.slice_loops import slice_rows

        inner = np.searchsorted(self._starts, np.linspace(0, self._starts[-1], _PARTS * threads + 1)[1:-1])
        cuts = [0, *inner.tolist(), self._full.size] if threads > 1 else [0, self._full.size]
        loop = slice_rows(self._uniform, self._data.dtype.char, self._indices.dtype.char, self._lanes)
        walk = Walk([(loop, cut) for cut in pairwise(cuts)], threads)
        walk.hold({frame.STARTS: self._starts, frame.INDICES: self._indices, frame.VALUES: self._data})
        walk.hold({frame.FULL: self._full, frame.LENGTHS: self._lengths, frame.ROWS: self._rows})
        walk.hold({frame.COLUMNS: self._firsts})
        return walk
