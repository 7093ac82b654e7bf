"""Iterative solvers on vectors that are spread over the ranks, and the bridge to scipy's."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.sparse.linalg import LinearOperator

from sparsecomm.apps.whole import replicate
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.errors import InputError

if TYPE_CHECKING:
    from sparsecomm.apps.matrix import DistMatrix

Vector = npt.NDArray[Any]


def dot(x: Vector, y: Vector, transport: Transport) -> Any:
    """Return the inner product <x, y> (x conjugated) of two vectors of which every rank has its own rows.

    Args:
        x, y: (num_own,) rows of this rank.
        transport: over the ranks that have the rows.

    Note: Collective over comm.
    """
    return transport.reduce(np.atleast_1d(np.vdot(x, y)), "sum")[0]


def norm(x: Vector, transport: Transport) -> float:
    """Return the Euclidean norm of a vector of which every rank has its own rows.

    Note: Collective over comm.
    """
    return math.sqrt(dot(x, x, transport).real)


def cg(
    a: DistMatrix,
    b: Vector,
    x0: Vector | None = None,
    *,
    rtol: float = 1e-5,
    atol: float = 0.0,
    maxiter: int | None = None,
) -> tuple[Vector, int]:
    """Solve A x = b by conjugate gradients for a Hermitian positive definite A; arguments are those of scipy's `cg`.

    Args:
        a: the matrix; its rows and columns have one layout.
        b: (num_own,) right-hand side, this rank's rows.
        x0: (num_own,) where to begin; zeros by default.
        rtol, atol: the end is norm(b - A x) <= max(rtol * norm(b), atol).
        maxiter: the most iterations; ten times the number of rows by default.

    Returns:
        x: (num_own,) this rank's rows of the solution.
        info: 0, or the number of iterations after which the tolerance was not met.

    Raises:
        InputError: on every rank, when `a` is not square with one layout, a vector has other rows than this rank owns,
            or `a` turns out not to be positive definite.

    Note: Collective over comm.

    Source: Hestenes, Stiefel, "Methods of conjugate gradients for solving linear systems", 1952.
    """
    a.transport.agree(_unfit(a, b, x0))
    dtype = np.result_type(a.dtype, b.dtype, np.float32)
    x = np.zeros(b.shape, dtype=dtype) if x0 is None else x0.astype(dtype)
    residual = b.astype(dtype) - a @ x
    direction = residual.copy()
    square = dot(residual, residual, a.transport).real
    enough = max(rtol * norm(b, a.transport), atol)
    limit = 10 * a.shape[0] if maxiter is None else maxiter
    for _ in range(limit):
        if math.sqrt(square) <= enough:
            return x, 0
        image = a @ direction
        curvature = dot(direction, image, a.transport).real
        if not curvature > 0:  # one number on all ranks, so all of them raise
            raise InputError(
                f"cg needs a positive definite matrix, but <p, A p> is {curvature:g} for a direction p; use a solver of"
                " scipy on as_linear_operator()"
            )
        step = square / curvature
        x += step * direction
        residual -= step * image
        square, before = dot(residual, residual, a.transport).real, square
        direction = residual + (square / before) * direction
    return x, 0 if math.sqrt(square) <= enough else limit


def linear_operator(a: DistMatrix) -> LinearOperator:
    """Return an operator on whole vectors, in original numbering and the same on every rank, for scipy's solvers.

    Every product multiplies the rows that each rank owns and gathers the result on all of them, so a solver that all
    ranks call with the same arguments takes the same steps on all.

    Ranks that are threads must not call solvers that hold a lock of their own, such as scipy's `eigsh`.

    Note: Every product is collective over comm.
    """

    rows, cols = a.product.layouts
    own_rows, own_cols = (layout.new_to_old()[layout.own_rows(a.product.rank)] for layout in (rows, cols))

    def forward(x: Vector) -> Vector:
        return replicate(a @ x[own_cols], rows, a.transport)

    def adjoint(y: Vector) -> Vector:
        return replicate(a.H @ y[own_rows], cols, a.transport)

    return LinearOperator(
        a.shape,
        dtype=a.dtype,
        matvec=lambda x: forward(x.reshape(-1)),
        matmat=forward,
        rmatvec=lambda y: adjoint(y.reshape(-1)),
        rmatmat=adjoint,
    )


def _unfit(a: DistMatrix, b: Vector, x0: Vector | None) -> InputError | None:
    rows, cols = a.product.layouts
    if not np.array_equal(rows.offsets, cols.offsets) or not np.array_equal(rows.to_all(), cols.to_all()):
        return InputError(f"cg needs a square matrix whose rows and columns have one layout, not {a!r}")
    num_own = a.product.gather.num_own
    for name, vector in (("b", b), ("x0", x0)):
        if vector is not None and vector.shape != (num_own,):
            return InputError(
                f"rank {a.product.rank} owns {num_own} rows of {name}, not an array of shape {vector.shape}"
            )
    return None
