"""The entry to the local product: `spmm`, or `prepare` once and multiply many times."""

from __future__ import annotations

import sys
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, issparse

from sparsecomm.errors import InputError
from sparsecomm.kernels.epilogue import Epilogue
from sparsecomm.kernels.plain import Plain
from sparsecomm.kernels.registry import Kernel, get_maker
from sparsecomm.kernels.threads import num_threads
from sparsecomm.kernels.tiled import Tiled

Dense = npt.NDArray[Any]

# Multiply-adds that scipy does in about the time that loading the compiled loops takes (0.4 to 1 s): who multiplies
# less than this in all never loads them, and who multiplies more loses at most as much again.
LOADING_WORK: Final = 1 << 31


class Prepared:
    """A matrix ready to multiply many times; its values may change, its structure not.

    Args:
        matrix: (m, n), its arrays are not copied.
        implementation: `auto`, or a name of the registry. `auto` is scipy until as much time has gone into it as
            loading the compiled loops takes, then those, wherever they fit. Both give the same bits.
        threads: that may share one product; None for `OMP_NUM_THREADS` or the cores of this process.

    Raises:
        InputError: there is no such implementation, or the matrix is none.
    """

    def __init__(self, matrix: csr_array[Any], *, implementation: str = "auto", threads: int | None = None) -> None:
        if not issparse(matrix) or matrix.ndim != 2:
            raise InputError(f"the matrix must be a scipy sparse array of two dimensions, not {type(matrix).__name__}")
        if implementation != "auto":
            get_maker(implementation)
        self.implementation, self.threads = implementation, threads or num_threads()
        self.matrix, self._kernels = csr_array(matrix), dict[str, Kernel]()
        self.shape: tuple[int, int] = self.matrix.shape

    def __repr__(self) -> str:
        how = f"implementation={self.implementation!r}, threads={self.threads}"
        return f"Prepared(shape={self.shape}, nnz={self.matrix.nnz}, {how})"

    def update(self, matrix: csr_array[Any]) -> None:
        """Take a matrix of the same structure with other values."""
        self.matrix = matrix
        tiled = {name: kernel for name, kernel in self._kernels.items() if isinstance(kernel, Tiled)}
        for kernel in tiled.values():
            kernel.update(matrix)
        self._kernels = {**tiled}

    def multiply(
        self,
        x: Dense,
        out: Dense | None = None,
        *,
        alpha: float = 1.0,
        beta: float = 0.0,
        epilogue: Epilogue | None = None,
    ) -> Dense:
        """Return `out`, set to `epilogue(alpha * matrix @ x + beta * out)`.

        Args:
            x: (n, k) or (n,), not modified.
            out: (m, k) or (m,), written in place, may not overlap `x`; None makes one.
            alpha: factor of the matrix: its values are multiplied, then summed.
            beta: factor of what `out` holds; 0 overwrites it, garbage and NaN too.
            epilogue: bias and bounds, see `Epilogue`.

        Raises:
            InputError: shapes do not fit.
        """
        result = self._result(x) if out is None else out
        self._check(x, result)
        if beta not in (0, 1):
            result *= beta
        self.multiply_rows(_matrix(x), _matrix(result), 0, self.shape[0], alpha, beta != 0, epilogue)
        return result

    def multiply_rows(
        self,
        x: Dense,
        out: Dense,
        first: int,
        last: int,
        alpha: float = 1.0,
        keep: bool = False,
        epilogue: Epilogue | None = None,
    ) -> None:
        """Compute `out = alpha * matrix[first:last] @ x`, added to what is there if `keep`; then the epilogue.

        Args:
            x: (n, k), not modified.
            out: (last - first, k).
            first, last: rows of the matrix; an epilogue wants all of them.
        """
        if alpha != 1:
            scaled = csr_array((self.matrix.data * alpha, self.matrix.indices, self.matrix.indptr), self.matrix.shape)
            Prepared(scaled, implementation=self.implementation, threads=self.threads).multiply_rows(
                x, out, first, last, 1.0, keep, epilogue
            )
            return
        self._kernel(x, out, first, last).multiply(x, out, first, last, keep=keep, epilogue=epilogue)

    def multiply_transposed(self, x: Dense, out: Dense | None = None) -> Dense:
        """Return `out`, set to `matrix.T @ x`, without building the transposed matrix.

        Args:
            x: (m, k) or (m,), not modified.
            out: (n, k) or (n,), written in place; None makes one.
        """
        result = self._result(x, transposed=True) if out is None else out
        self._check(x, result, transposed=True)
        kernel = self._kernel(_matrix(x), _matrix(result), 0, self.shape[0])
        (kernel if isinstance(kernel, Tiled) else Plain(self.matrix)).multiply_transposed(_matrix(x), _matrix(result))
        return result

    def _kernel(self, x: Dense, out: Dense, first: int, last: int) -> Kernel:
        """Return the kernel for these blocks."""
        name = "compiled" if self.implementation == "auto" else self.implementation
        kernel = self._kernels.get(name) or self._made(name)
        if kernel.fits(x, out) and (self.implementation != "auto" or self._is_worth(x.shape[1], first, last)):
            return kernel
        return self._made("scipy")

    def _made(self, name: str) -> Kernel:
        if name not in self._kernels:
            self._kernels[name] = get_maker(name)(self.matrix, self.threads)
        return self._kernels[name]

    def _is_worth(self, width: int, first: int, last: int) -> bool:
        global _work_by_scipy
        if "sparsecomm.kernels.loops" in sys.modules:
            return True
        _work_by_scipy += int(self.matrix.indptr[last] - self.matrix.indptr[first]) * width
        return _work_by_scipy > LOADING_WORK

    def _result(self, x: Dense, *, transposed: bool = False) -> Dense:
        rows = self.shape[1 if transposed else 0]
        return np.empty((rows, *x.shape[1:]), np.result_type(self.matrix.dtype, x.dtype))

    def _check(self, x: Dense, out: Dense, *, transposed: bool = False) -> None:
        rows, cols = self.shape[::-1] if transposed else self.shape
        if x.ndim not in (1, 2) or x.shape[0] != cols:
            raise InputError(f"X has shape {x.shape}; this product needs {cols} rows")
        if out.shape != (rows, *x.shape[1:]):
            raise InputError(f"out has shape {out.shape}; this product needs {(rows, *x.shape[1:])}")


_work_by_scipy = 0


def prepare(matrix: csr_array[Any], *, implementation: str = "auto", threads: int | None = None) -> Prepared:
    """Make a matrix ready to multiply many times; see `Prepared`."""
    return Prepared(matrix, implementation=implementation, threads=threads)


def spmm(
    matrix: csr_array[Any] | Prepared,
    x: Dense,
    out: Dense | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 0.0,
    epilogue: Epilogue | None = None,
) -> Dense:
    """Return `out`, set to `epilogue(alpha * matrix @ x + beta * out)`; see `Prepared.multiply`.

    >>> import numpy as np
    >>> from scipy.sparse import csr_array
    >>> spmm(csr_array(np.array([[0.0, 2.0], [1.0, 0.0]])), np.array([[1.0], [3.0]])).tolist()
    [[6.0], [1.0]]
    """
    prepared = matrix if isinstance(matrix, Prepared) else Prepared(matrix)
    return prepared.multiply(x, out, alpha=alpha, beta=beta, epilogue=epilogue)


def _matrix(block: Dense) -> Dense:
    return block if block.ndim == 2 else block[:, None]
