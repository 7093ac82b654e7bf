"""The product by scipy's compiled loops: the reference, for every dtype, on one thread."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.sparse import _sparsetools, csr_array

from sparsecomm.kernels.epilogue import Epilogue

Dense = npt.NDArray[Any]
Indices = npt.NDArray[np.int32 | np.int64]

# What the loops below scipy's `@` are compiled for; float16 is not among it.
_COMPILED: Final = frozenset(np.typecodes["AllInteger"] + "fdgFDG")


class Plain:
    """Multiplies rows of a matrix by scipy."""

    def __init__(self, matrix: csr_array[Any]) -> None:
        self.matrix = matrix

    def fits(self, x: Dense, out: Dense) -> bool:
        """Say that any blocks suit it."""
        return True

    def multiply(
        self, x: Dense, out: Dense, first: int, last: int, *, keep: bool = False, epilogue: Epilogue | None = None
    ) -> None:
        """Compute `out = matrix[first:last] @ x`, added to what is there if `keep`; then the epilogue."""
        if not keep:
            out[...] = 0
        matrix = self.matrix
        _add_product(matrix.indptr[first : last + 1], matrix.indices, matrix.data, x, out)
        if epilogue is not None:
            epilogue.apply(out)

    def multiply_transposed(self, x: Dense, out: Dense) -> None:
        """Compute `out = matrix.T @ x`; scipy walks the columns of the same arrays."""
        out[...] = self.matrix.T @ x


def _add_product(indptr: Indices, indices: Indices, data: Dense, x: Dense, out: Dense) -> None:
    """Compute `out += matrix @ x`; rows of `out` whose rows of the matrix are empty are not touched.

    `indptr` may be part of one that is longer: it holds places in `indices` and `data`.
    """
    fits = out.dtype == np.result_type(data, x) and out.dtype.char in _COMPILED
    if fits and not out.flags.c_contiguous:  # some columns: what is there is added to, not its sums, for the same bits
        block = np.ascontiguousarray(out)
        _add_product(indptr, indices, data, x, block)
        out[...] = block
    elif not fits:
        begin, end = indptr[0], indptr[-1]
        parts = (data[begin:end], indices[begin:end], indptr - begin)
        out += csr_array(parts, shape=(out.shape[0], x.shape[0])) @ x
    # `@` of scipy is these two calls on a result of its own; new memory for it and the copy cost more than the product.
    elif x.shape[1] == 1:
        _sparsetools.csr_matvec(out.shape[0], x.shape[0], indptr, indices, data, x.reshape(-1), out.reshape(-1))
    else:
        rows, cols, width = out.shape[0], x.shape[0], x.shape[1]
        _sparsetools.csr_matvecs(rows, cols, width, indptr, indices, data, x.reshape(-1), out.reshape(-1))
