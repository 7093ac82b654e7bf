"""The two runs of a plan as autograd functions: each is the other's backward pass.

Every rank must build the same graph: a backward pass that one rank leaves out is a run that the others wait for.
"""

from __future__ import annotations

from typing import Any

import torch

from sparsecomm.apps.ghost_exchange import GhostExchange
from sparsecomm.apps.handles import thing_of
from sparsecomm.apps.torch.arrays import as_array, as_tensor, without_bfloat16


def gather(exchange: GhostExchange, x: torch.Tensor) -> torch.Tensor:
    """Fetch the ghost rows of this rank; the backward pass scatters.

    Args:
        exchange: whose plan says which rows.
        x: (num_own, ...) rows on the CPU.

    Returns:
        (num_ghost, ...) rows in the order of `exchange.plan.ghost_rows`.

    Note: Collective over comm.
    """
    return _gather(without_bfloat16(x), exchange.handle)


def scatter(exchange: GhostExchange, partials: torch.Tensor) -> torch.Tensor:
    """Send partial rows to the owners of their rows, which add them up; the backward pass gathers.

    Args:
        exchange: whose plan says which rows.
        partials: (num_ghost, ...) rows on the CPU.

    Returns:
        (num_own, ...) sums.

    Note: Collective over comm.
    """
    return _scatter(without_bfloat16(partials), exchange.handle)


@torch.library.custom_op("sparsecomm::gather", mutates_args=(), schema="(Tensor x, int handle) -> Tensor")
def _gather(x: torch.Tensor, handle: int) -> torch.Tensor:
    return as_tensor(thing_of(handle).forward(as_array(x)))


@torch.library.custom_op("sparsecomm::scatter", mutates_args=(), schema="(Tensor partials, int handle) -> Tensor")
def _scatter(partials: torch.Tensor, handle: int) -> torch.Tensor:
    return as_tensor(thing_of(handle).reverse(as_array(partials)))


@_gather.register_fake
def _(x: torch.Tensor, handle: int) -> torch.Tensor:
    return x.new_empty(thing_of(handle).plan.num_ghost, *x.shape[1:])


@_scatter.register_fake
def _(partials: torch.Tensor, handle: int) -> torch.Tensor:
    return partials.new_empty(thing_of(handle).plan.num_own, *partials.shape[1:])


def _keep_handle(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    ctx.handle = inputs[1]


_gather.register_autograd(lambda ctx, grad: (_scatter(grad, ctx.handle), None), setup_context=_keep_handle)
_scatter.register_autograd(lambda ctx, grad: (_gather(grad, ctx.handle), None), setup_context=_keep_handle)
