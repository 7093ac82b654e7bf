"""The transpose of a sparse matrix that is spread over the ranks of a job."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sparsecomm.apps.whole import collect, distribute

if TYPE_CHECKING:
    from sparsecomm.apps.matrix import DistMatrix

Dense = npt.NDArray[Any]


class TransposedMatrix:
    """The transposed (or adjoint) of a `DistMatrix`: the same blocks and plans, each run the other way."""

    def __init__(self, matrix: DistMatrix, *, conjugate: bool) -> None:
        self._matrix, self._conjugate = matrix, conjugate

    def __repr__(self) -> str:
        return f"{self._matrix!r}.{'H' if self._conjugate else 'T'}"

    @property
    def shape(self) -> tuple[int, int]:
        return self._matrix.shape[1], self._matrix.shape[0]

    @property
    def T(self) -> DistMatrix:
        if self._conjugate:
            raise NotImplementedError(
                "the conjugated matrix is not kept; conjugate around A instead: (A @ x.conj()).conj()"
            )
        return self._matrix

    @property
    def H(self) -> DistMatrix:
        if not self._conjugate:
            raise NotImplementedError(
                "the conjugated matrix is not kept; conjugate around A instead: (A @ x.conj()).conj()"
            )
        return self._matrix

    def __matmul__(self, y: Dense) -> Dense:
        """Return this rank's rows of A.T @ Y (or A.H @ Y).

        Args:
            y: (num_own_rows, k) or (num_own_rows,), this rank's rows of Y; not modified.

        Note: Collective over comm.
        """
        if self._conjugate:
            return np.conj(self._matrix.multiply_transposed(np.conj(y)))
        return self._matrix.multiply_transposed(y)

    def products(self, ys: Iterable[Dense]) -> Iterator[Dense]:
        """Yield this rank's rows of A.T @ Y (or A.H @ Y) for several Y; see `DistMatrix.products`.

        Note: Collective over comm, every step.
        """
        if not self._conjugate:
            return self._matrix.products(ys, transposed=True)
        return map(np.conj, self._matrix.products(map(np.conj, ys), transposed=True))

    def empty(self, width: int, dtype: npt.DTypeLike | None = None) -> Dense:
        """Return (num_own_rows, width) memory for Y that `A.T @ Y` reads without a copy; uninitialised."""
        return self._matrix.own_buffer("scatter", width, np.dtype(dtype or self._matrix.dtype))

    def distribute(self, y: Dense | None, root: int = 0) -> Dense:
        """Send a whole Y, in original numbering, from `root` to the ranks that own its rows.

        Note: Collective over comm.
        """
        self._matrix.check_open()
        return distribute(y, self._matrix.product.layouts.rows, self._matrix.transport, root)

    def collect(self, x: Dense, root: int = 0) -> Dense | None:
        """Return a whole A.T @ Y, in original numbering, on `root`; None elsewhere.

        Note: Collective over comm.
        """
        self._matrix.check_open()
        return collect(x, self._matrix.product.layouts.cols, self._matrix.transport, root)
