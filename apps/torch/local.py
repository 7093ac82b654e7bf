"""Products of matrices that one rank holds whole, with the local kernel of the library."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array

from sparsecomm.apps.torch.arrays import as_array, as_tensor, without_bfloat16
from sparsecomm.kernels import Block
from sparsecomm.typing import IntGlobal

# A dense product does about this many multiply-adds in the time of one of a sparse product.
_DENSE: Final = 4


class LocalMatrix:
    """A sparse matrix in this rank's memory that multiplies tensors.

    Args:
        matrix: (m, n); its values are constants of a product, but may be others in the next one.
    """

    def __init__(self, matrix: csr_array[Any]) -> None:
        self.matrix, self.shape, self.values = matrix, matrix.shape, matrix.data
        self._block = Block(matrix.shape, *self.entries(), np.arange(matrix.nnz))
        self._current: npt.NDArray[Any] | None = None

    def entries(self) -> tuple[IntGlobal, IntGlobal]:
        """Return row and column of every value."""
        rows = np.repeat(np.arange(self.shape[0], dtype=np.int64), np.diff(self.matrix.indptr))
        return rows, self.matrix.indices.astype(np.int64)

    def dense(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the matrix with other `values` as a dense one."""
        return csr_array((values, self.matrix.indices, self.matrix.indptr), shape=self.shape).toarray()

    def __call__(self, x: torch.Tensor, values: npt.NDArray[Any] | None = None) -> torch.Tensor:
        """Return the product with `x`, (n, k), the matrix having other `values`, (nnz,) in CSR order, if given."""
        return _LocalProduct.apply(without_bfloat16(x), self, self.values if values is None else values)

    def multiply(self, x: npt.NDArray[Any], values: npt.NDArray[Any], *, transposed: bool) -> npt.NDArray[Any]:
        """Return the product of an array, or that of the transposed matrix."""
        if values is not self._current:
            self._current = values
            self._block.update(values)
        block = self._block.transposed() if transposed else self._block
        y = np.empty((block.shape[0], x.shape[1]), dtype=np.result_type(values, x))
        block.multiply(x, y)
        return y


class DenseMatrix:
    """A dense matrix with the calls of `LocalMatrix`.

    Args:
        matrix: (m, n).
    """

    def __init__(self, matrix: npt.NDArray[Any]) -> None:
        self.shape, self.values = matrix.shape, matrix.reshape(-1)

    def entries(self) -> tuple[IntGlobal, IntGlobal]:
        """Return row and column of every value."""
        rows, cols = (np.arange(count, dtype=np.int64) for count in self.shape)
        return np.repeat(rows, cols.size), np.tile(cols, rows.size)

    def dense(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the matrix with other `values`."""
        return values.reshape(self.shape)

    def __call__(self, x: torch.Tensor, values: npt.NDArray[Any] | None = None) -> torch.Tensor:
        """Return the product with `x`, (n, k); see `LocalMatrix`."""
        return as_tensor(self.dense(self.values if values is None else values)) @ x


def local_matrix(matrix: csr_array[Any] | npt.NDArray[Any]) -> LocalMatrix | DenseMatrix:
    """Return what multiplies a matrix fastest: a dense product, where many entries are not zero."""
    if isinstance(matrix, np.ndarray):
        return DenseMatrix(matrix)
    return DenseMatrix(matrix.toarray()) if is_dense(matrix) else LocalMatrix(matrix)


def is_dense(matrix: csr_array[Any]) -> bool:
    """Say whether a matrix has so many entries that it is held as a dense one."""
    return bool(matrix.nnz * _DENSE >= matrix.shape[0] * matrix.shape[1])


class _LocalProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, matrix: LocalMatrix, values: npt.NDArray[Any]) -> torch.Tensor:
        ctx.matrix, ctx.values = matrix, values
        return as_tensor(matrix.multiply(as_array(x), values, transposed=False))

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, None, None]:
        if not ctx.needs_input_grad[0]:
            return None, None, None
        return as_tensor(ctx.matrix.multiply(as_array(grad), ctx.values, transposed=True)), None, None
