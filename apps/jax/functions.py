"""The runs of a plan and products of a matrix as functions of JAX arrays.

They can be compiled (`jax.jit`), differentiated in both directions, any number of times, and used in `lax.scan` and
`vmap`, but not in `jax.checkpoint`. Every rank must trace and run the same program: what one rank leaves out, the
others wait for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.flatten_util import ravel_pytree

from sparsecomm.apps.ghost_exchange import GhostExchange
from sparsecomm.apps.jax.linear import Dense, Linear
from sparsecomm.apps.matrix import DistMatrix
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.errors import InputError


def gather(exchange: GhostExchange, x: jax.Array) -> jax.Array:
    """Fetch the ghost rows of this rank; its transpose scatters.

    Args:
        exchange: whose plan says which rows.
        x: (num_own, ...) rows.

    Returns:
        (num_ghost, ...) rows in the order of `exchange.plan.ghost_rows`.

    Raises:
        InputError: another number of rows, or a dtype that numpy does not have.

    Note: Collective over comm.
    """
    return _of(exchange)(x)


def scatter(exchange: GhostExchange, partials: jax.Array) -> jax.Array:
    """Send partial rows to the owners of their rows, which add them up; its transpose gathers.

    Args:
        exchange: whose plan says which rows.
        partials: (num_ghost, ...) rows.

    Returns:
        (num_own, ...) sums.

    Raises:
        InputError: another number of rows, or a dtype that numpy does not have.

    Note: Collective over comm.
    """
    return _of(exchange).transposed(partials)


def spmm(matrix: DistMatrix, x: jax.Array) -> jax.Array:
    """Return this rank's rows of A @ X; its transpose multiplies by A.T, every plan run the other way.

    Args:
        matrix: A; its values are constants.
        x: (num_own_cols, ...) rows of the dtype of the matrix.

    Raises:
        InputError: another number of rows, or another dtype.

    Note: Collective over comm.
    """
    if not isinstance(matrix, DistMatrix):
        raise InputError(f"spmm needs a DistMatrix, not a {type(matrix).__name__}; its transpose is the gradient's")
    matrix.check_open()
    x = jax.numpy.asarray(x)
    if x.dtype != matrix.dtype:
        wide = matrix.dtype.itemsize > 4 and not jax.config.jax_enable_x64
        cure = "" if not wide else "; without jax_enable_x64 JAX has no numbers of 64 bits"
        raise InputError(f"X is {x.dtype}, but the matrix is {matrix.dtype}; convert one of them{cure}")
    own = matrix.product.gather.num_own, matrix.product.scatter.num_own
    return Linear(matrix.__matmul__, matrix.multiply_transposed, *own)(x)


def sum_gradients(gradients: Any, transport: Transport) -> Any:
    """Return the sums over the ranks of a tree of arrays, such as gradients of weights that all ranks have.

    Args:
        gradients: a pytree, of equal shapes on all ranks; sent as one array.
        transport: over the ranks.

    Note: Collective over comm.
    """
    if not hasattr(transport, "reduce"):
        raise InputError(f"sum_gradients needs the transport of the job, as open_transport() gives, not {transport!r}")
    flat, restored = ravel_pytree(gradients)
    add = _Sum(transport)
    return restored(Linear(add, add, flat.size, flat.size)(flat))


@dataclass(frozen=True)
class _Sum:
    """Sums over ranks, which are their own transpose where the loss is the sum of the losses of all ranks."""

    transport: Transport

    def __call__(self, x: Dense) -> Dense:
        return np.asarray(self.transport.reduce(x, "sum"))


def _of(exchange: GhostExchange) -> Linear:
    if not isinstance(exchange, GhostExchange):
        raise InputError(f"an exchange is needed, not a {type(exchange).__name__}; give GhostExchange.of(matrix)")
    return Linear(exchange.forward, exchange.reverse, exchange.plan.num_own, exchange.plan.num_ghost)
