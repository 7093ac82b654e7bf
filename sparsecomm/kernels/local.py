"""Local sparse times dense, by scipy; the only file that knows how a rank multiplies."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.sparse import _sparsetools, csr_array

from sparsecomm.table import sort_order
from sparsecomm.typing import IntGlobal

Dense = npt.NDArray[Any]
Indices = npt.NDArray[np.int32 | np.int64]

# Multiply-adds in one chunk of rows: its part of the result is written, and added to, while it is still in the cache,
# and the cost of looking for arrivals after each is lost in the product.
CHUNK_WORK: Final = 1 << 18

# What the loops below scipy's `@` are compiled for; float16 is not among it.
_COMPILED: Final = frozenset(np.typecodes["AllInteger"] + "fdgFDG")


def spmm(matrix: csr_array[Any], x: Dense, out: Dense, *, accumulate: bool = False) -> None:
    """Compute `out = matrix @ x`, or `out += matrix @ x`.

    Args:
        matrix: (m, n).
        x: (n, k), not modified.
        out: (m, k), written in place; may not overlap `x`.
        accumulate: add to `out` instead of overwriting it.
    """
    if not accumulate:
        out[...] = 0
    _add_product(matrix.indptr, matrix.indices, matrix.data, x, out)


def _add_product(indptr: Indices, indices: Indices, data: Dense, x: Dense, out: Dense) -> None:
    """Compute `out += matrix @ x`; rows of `out` whose rows of the matrix are empty are not touched.

    `indptr` may be part of one that is longer: it holds places in `indices` and `data`.
    """
    fits = out.dtype == np.result_type(data, x) and out.dtype.char in _COMPILED
    if not (fits and out.flags.c_contiguous):
        begin, end = indptr[0], indptr[-1]
        parts = (data[begin:end], indices[begin:end], indptr - begin)
        out += csr_array(parts, shape=(out.shape[0], x.shape[0])) @ x
    # `@` of scipy is these two calls on a result of its own; new memory for it and the copy cost more than the product.
    elif x.shape[1] == 1:
        _sparsetools.csr_matvec(out.shape[0], x.shape[0], indptr, indices, data, x.reshape(-1), out.reshape(-1))
    else:
        rows, cols, width = out.shape[0], x.shape[0], x.shape[1]
        _sparsetools.csr_matvecs(rows, cols, width, indptr, indices, data, x.reshape(-1), out.reshape(-1))


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
        index: type[np.int32 | np.int64] = np.int32 if slot.size < 2**31 else np.int64
        counts = np.bincount(row, minlength=shape[0])
        self._indptr: Indices = np.concatenate([[0], np.cumsum(counts)]).astype(index)
        self._indices: Indices = col[order].astype(index)
        self._turned: Block | None = None
        self._placed: list[tuple[IntGlobal, Block]] = []
        self.shape, self.nnz = shape, slot.size
        self.update(np.zeros(int(slot.max()) + 1 if slot.size else 0))

    def update(self, values: Dense) -> None:
        """Take the values of all nonzeros from `values[slot]`."""
        self._values = values
        self.matrix = csr_array((values[self._slot], self._indices, self._indptr), shape=self.shape)
        for other in ([self._turned] if self._turned else []) + [block for _, block in self._placed]:
            other.update(values)

    def transposed(self) -> Block:
        """Return the transposed block, made once; it follows later updates."""
        if self._turned is None:
            row = np.repeat(np.arange(self.shape[0]), np.diff(self._indptr))
            self._turned = Block(self.shape[::-1], self._indices.astype(np.int64), row, self._slot)
            self._turned.update(self._values)
        return self._turned

    def placed(self, places: IntGlobal, num_rows: int) -> Block:
        """Return the block for an x of `num_rows` rows in which row `places[j]` is what was row j.

        Made once for all equal `places`; it follows later updates. Nonzeros keep their order, so sums keep their bits.
        """
        for known, block in self._placed:
            if known is places or np.array_equal(known, places):
                return block
        made = copy(self)
        made._indices = places[self._indices].astype(np.int32 if num_rows < 2**31 else np.int64)
        made._indptr = self._indptr.astype(made._indices.dtype)
        made._turned, made._placed, made.shape = None, [], (self.shape[0], num_rows)
        made.update(self._values)
        self._placed.append((places, made))
        return made

    def multiply(self, x: Dense, out: Dense, *, accumulate: bool = False) -> None:
        """Compute `out = self @ x`, or add to `out`."""
        if self.nnz:
            spmm(self.matrix, x, out, accumulate=accumulate)
        elif not accumulate:
            out[...] = 0

    def multiply_in_chunks(self, x: Dense, out: Dense) -> Iterator[None]:
        """Compute `out = self @ x` a few rows at a time, pausing after each chunk."""
        for first, last in pairwise(self._cuts(x.shape[1])):
            part = out[first:last]
            part[...] = 0
            _add_product(self._indptr[first : last + 1], self._indices, self.matrix.data, x, part)
            yield

    def _cuts(self, width: int) -> list[int]:
        """Return where to cut the rows so that every chunk has about the same nonzeros."""
        chunks = max(1, min(self.shape[0], self.nnz * width // CHUNK_WORK))
        inner = np.searchsorted(self._indptr, np.linspace(0, self.nnz, chunks + 1)[1:-1])
        return sorted({0, *inner.tolist(), self.shape[0]})
