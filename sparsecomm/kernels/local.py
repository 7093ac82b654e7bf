"""A block of a rank's local matrix: its structure stays, its values may change."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from sparsecomm.kernels.prepared import Prepared
from sparsecomm.kernels.tiled import cut_rows
from sparsecomm.table import sort_order
from sparsecomm.typing import IntGlobal

Dense = npt.NDArray[Any]
Indices = npt.NDArray[np.int32 | np.int64]

# Multiply-adds in one chunk of rows: its part of the result is written, and added to, while it is still in the cache,
# and the cost of looking for arrivals after each is lost in the product.
CHUNK_WORK: Final = 1 << 20


class Block:
    """One block of a rank's local matrix, whose values can change while its structure stays.

    Args:
        shape: rows and columns of the block.
        row, col: (nnz,) local indices, no pair twice.
        slot: (nnz,) int64, where the value of each nonzero stands in the arrays that `update` takes.
        threads: that may share one product.
    """

    def __init__(
        self, shape: tuple[int, int], row: IntGlobal, col: IntGlobal, slot: IntGlobal, threads: int = 1
    ) -> None:
        order = sort_order([row, col])
        self._slot = slot[order]
        # scipy wants one type for both index arrays, and multiplies faster with the narrow one.
        index: type[np.int32 | np.int64] = np.int32 if slot.size < 2**31 else np.int64
        counts = np.bincount(row, minlength=shape[0])
        self._indptr: Indices = np.concatenate([[0], np.cumsum(counts)]).astype(index)
        self._indices: Indices = col[order].astype(index)
        self._turned: Block | None = None
        self._placed: list[tuple[IntGlobal, Block]] = []
        self.shape, self.nnz, self._threads = shape, slot.size, threads
        self._values = np.zeros(int(slot.max()) + 1 if slot.size else 0)
        self._prepared = Prepared(self.matrix, threads=threads)

    def update(self, values: Dense) -> None:
        """Take the values of all nonzeros from `values[slot]`."""
        self._values = values
        self._prepared.update(self.matrix)
        for other in ([self._turned] if self._turned else []) + [block for _, block in self._placed]:
            other.update(values)

    @property
    def matrix(self) -> csr_array[Any]:
        """The block with the values it has now."""
        return csr_array((self._values[self._slot], self._indices, self._indptr), shape=self.shape)

    def transposed(self) -> Block:
        """Return the transposed block, made once; it follows later updates."""
        if self._turned is None:
            row = np.repeat(np.arange(self.shape[0]), np.diff(self._indptr))
            self._turned = Block(self.shape[::-1], self._indices.astype(np.int64), row, self._slot, self._threads)
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
        made._prepared = Prepared(made.matrix, threads=made._threads)
        self._placed.append((places, made))
        return made

    def multiply(self, x: Dense, out: Dense, *, accumulate: bool = False) -> None:
        """Compute `out = self @ x`, or add to `out`."""
        if self.nnz:
            self._prepared.multiply_rows(x, out, 0, self.shape[0], keep=accumulate)
        elif not accumulate:
            out[...] = 0

    def sample(self, y: Dense, x: Dense, values: Dense) -> None:
        """Set `values[slot]` of every nonzero to the sum over k of y[row, k] * conj(x[col, k]).

        Args:
            y: (rows of the block, k).
            x: (columns of the block, k).
            values: what `update` takes.
        """
        row = np.repeat(np.arange(self.shape[0]), np.diff(self._indptr))
        step = max(1, CHUNK_WORK // max(1, x.shape[1]))
        for begin in range(0, self.nnz, step):
            part = slice(begin, begin + step)
            products = np.einsum("nk,nk->n", y[row[part]], np.conj(x[self._indices[part]]))
            values[self._slot[part]] = products

    def multiply_in_chunks(self, x: Dense, out: Dense) -> Iterator[None]:
        """Compute `out = self @ x` a few rows at a time, pausing after each chunk."""
        for first, last in pairwise(self._cuts(x.shape[1])):
            self._prepared.multiply_rows(x, out[first:last], first, last)
            yield

    def _cuts(self, width: int) -> list[int]:
        """Return where to cut the rows so that every chunk has about the same nonzeros."""
        chunks = max(1, min(self.shape[0], self.nnz * width // (CHUNK_WORK * self._threads)))
        return cut_rows(self._indptr, chunks) if chunks > 1 else [0, self.shape[0]]
