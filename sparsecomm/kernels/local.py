"""Local sparse times dense, by scipy; the only file that knows how a rank multiplies."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from sparsecomm.table import sort_order
from sparsecomm.typing import IntGlobal

Dense = npt.NDArray[Any]

# Multiply-adds in one chunk of rows: a few milliseconds of one core, so that arrivals are seen in time and the cost of
# looking is lost in the product.
CHUNK_WORK: Final = 1 << 22


def spmm(matrix: csr_array[Any], x: Dense, out: Dense, *, accumulate: bool = False) -> None:
    """Compute `out = matrix @ x`, or `out += matrix @ x`.

    Args:
        matrix: (m, n).
        x: (n, k), not modified.
        out: (m, k), written in place; may not overlap `x`.
        accumulate: add to `out` instead of overwriting it.
    """
    if accumulate:
        out += matrix @ x
    else:
        out[...] = matrix @ x


class Block:
    """One block of a rank's local matrix, whose values can change while its structure stays.

    Args:
        shape: rows and columns of the block.
        row, col: (nnz,) local indices, no pair twice.
        slot: (nnz,) int64, where the value of each nonzero stands in the arrays that `update` takes.
    """

    def __init__(self, shape: tuple[int, int], row: IntGlobal, col: IntGlobal, slot: IntGlobal) -> None:
        order = sort_order([row, col])
        self._slot = slot[order]
        # scipy wants one type for both index arrays, and multiplies faster with the narrow one.
        index = np.int32 if slot.size < 2**31 else np.int64
        counts = np.bincount(row, minlength=shape[0])
        self._indptr = np.concatenate([[0], np.cumsum(counts)]).astype(index)
        self._indices = col[order].astype(index)
        self._turned: Block | None = None
        self.shape, self.nnz = shape, slot.size
        self.update(np.zeros(int(slot.max()) + 1 if slot.size else 0))

    def update(self, values: Dense) -> None:
        """Take the values of all nonzeros from `values[slot]`."""
        self._values = values
        self.matrix = csr_array((values[self._slot], self._indices, self._indptr), shape=self.shape)
        if self._turned is not None:
            self._turned.update(values)

    def transposed(self) -> Block:
        """Return the transposed block, made once; it follows later updates."""
        if self._turned is None:
            row = np.repeat(np.arange(self.shape[0]), np.diff(self._indptr))
            self._turned = Block(self.shape[::-1], self._indices.astype(np.int64), row, self._slot)
            self._turned.update(self._values)
        return self._turned

    def multiply(self, x: Dense, out: Dense, *, accumulate: bool = False) -> None:
        """Compute `out = self @ x`, or add to `out`."""
        if self.nnz:
            spmm(self.matrix, x, out, accumulate=accumulate)
        elif not accumulate:
            out[...] = 0

    def multiply_in_chunks(self, x: Dense, out: Dense) -> Iterator[None]:
        """Compute `out = self @ x` a few rows at a time, pausing after each chunk."""
        for first, last in pairwise(self._cuts(x.shape[1])):
            begin, end = self._indptr[first], self._indptr[last]
            parts = (self.matrix.data[begin:end], self._indices[begin:end], self._indptr[first : last + 1] - begin)
            spmm(csr_array(parts, shape=(last - first, self.shape[1])), x, out[first:last])
            yield

    def _cuts(self, width: int) -> list[int]:
        """Return where to cut the rows so that every chunk has about the same nonzeros."""
        chunks = max(1, min(self.shape[0], self.nnz * width // CHUNK_WORK))
        inner = np.searchsorted(self._indptr, np.linspace(0, self.nnz, chunks + 1)[1:-1])
        return sorted({0, *inner.tolist(), self.shape[0]})
