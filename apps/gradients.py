"""What a product of a distributed matrix has to keep for its gradients, and the gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sparsecomm.apps.matrix import DistMatrix
from sparsecomm.arrays import check_array
from sparsecomm.errors import InputError
from sparsecomm.kernels import Block
from sparsecomm.plan import RankPlan

Dense = npt.NDArray[Any]


def multiply_keeping(matrix: DistMatrix, x: Dense) -> tuple[Dense, Dense]:
    """Return this rank's rows of A @ X and, for `gradients`, the ghost rows of X.

    Args:
        matrix: A.
        x: (num_own_cols, k).

    Returns:
        (num_own_rows, k) and (num_ghost_cols, k).

    Raises:
        InputError: X has another shape.

    Note: Collective over comm.
    """
    _check_rows("x", x, matrix.product.gather.num_own, np.shape(x)[1:])
    ghosts = _ghosts(matrix, "gather", x)
    return _apply(matrix, matrix.blocks.all, (x, ghosts), "scatter"), ghosts


def gradients(matrix: DistMatrix, grad: Dense, x: Dense, ghosts: Dense) -> tuple[Dense, Dense]:
    """Return the gradients of a loss with respect to the values of A and to X, for Y = A @ X.

    It moves the rows of the forward pass the other way, and for nonzeros that other ranks multiply one number each.

    Args:
        matrix: A.
        grad: (num_own_rows, k), the gradient with respect to this rank's rows of Y.
        x, ghosts: what `multiply_keeping` was given and kept.

    Returns:
        (own nonzeros,) in CSR order and (num_own_cols, k).

    Raises:
        InputError: a block has another shape.

    Note: Collective over comm.
    """
    gather, columns = matrix.product.gather, np.shape(grad)[1:]
    _check_rows("grad", grad, matrix.product.scatter.num_own, columns)
    _check_rows("x", x, gather.num_own, columns)
    _check_rows("ghosts", ghosts, gather.num_ghost, columns)
    partials = _ghosts(matrix, "scatter", grad)
    of_values = matrix.blocks.sampled((grad, partials), (x, ghosts))
    own, in_, out, via = (block.transposed() for block in matrix.blocks.all)
    of_x = _apply(matrix, (own, out, in_, via), (np.conj(grad), np.conj(partials)), "gather")
    return of_values, np.conj(of_x)


def _check_rows(name: str, block: Dense, num_rows: int, columns: tuple[int, ...]) -> None:
    check_array(block)
    if block.ndim != 2 or block.shape != (num_rows, *columns):
        wide = f"{columns[0]} columns" if columns else "two dimensions"
        raise InputError(f"{name} must have {num_rows} rows here and {wide}, not the shape {block.shape}")


def _ghosts(matrix: DistMatrix, plan: str, x: Dense) -> Dense:
    """Return a copy of the ghost rows that a plan brings."""
    part: RankPlan = getattr(matrix.product, plan)
    ghosts = np.empty((part.num_ghost, x.shape[1]), dtype=x.dtype)
    if part.stages:
        matrix.exchange(plan, x.shape[1], x.dtype).start(np.ascontiguousarray(x)).wait(ghosts)
    return ghosts


def _apply(matrix: DistMatrix, blocks: tuple[Block, Block, Block, Block], x: tuple[Dense, Dense], plan: str) -> Dense:
    """Multiply own and ghost rows of X with the blocks (own, in, out, via), and send partial rows to their owners."""
    part: RankPlan = getattr(matrix.product, plan)
    dtype, width = np.result_type(matrix.dtype, x[0].dtype), x[0].shape[1]
    y, partials = (np.zeros((rows, width), dtype=dtype) for rows in (part.num_own, part.num_ghost))
    for block, rows, result in zip(blocks, (*x, *x), (y, y, partials, partials), strict=True):
        block.multiply(rows, result, accumulate=True)
    if part.stages:
        matrix.exchange(plan, width, dtype).reverse(partials, y)
    return y
