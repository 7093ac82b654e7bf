"""Products of matrices that one rank holds whole, with the local kernel of the library."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array

from sparsecomm.apps.torch.arrays import as_array, as_tensor
from sparsecomm.kernels import Block


class LocalMatrix:
    """A sparse matrix in this rank's memory that multiplies tensors.

    Args:
        matrix: (m, n); its values are constants of a product, but may be others in the next one.
    """

    def __init__(self, matrix: csr_array[Any]) -> None:
        self.matrix, self.shape, self.values = matrix, matrix.shape, matrix.data
        row = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr))
        self._block = Block(matrix.shape, row, matrix.indices.astype(np.int64), np.arange(matrix.nnz))
        self._current: npt.NDArray[Any] | None = None

    def __call__(self, x: torch.Tensor, values: npt.NDArray[Any] | None = None) -> torch.Tensor:
        """Return the product with `x`, (n, k), the matrix having other `values`, (nnz,) in CSR order, if given."""
        return _LocalProduct.apply(x, self, self.values if values is None else values)

    def multiply(self, x: npt.NDArray[Any], values: npt.NDArray[Any], *, transposed: bool) -> npt.NDArray[Any]:
        """Return the product of an array, or that of the transposed matrix."""
        if values is not self._current:
            self._current = values
            self._block.update(values)
        block = self._block.transposed() if transposed else self._block
        y = np.empty((block.shape[0], x.shape[1]), dtype=np.result_type(values, x))
        block.multiply(x, y)
        return y


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
