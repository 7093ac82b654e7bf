"""Rows for whoever asks, with other requests at every call, as autograd functions, each the other's backward pass."""

from __future__ import annotations

from typing import Any

import torch

from sparsecomm.apps.handles import handle_of, thing_of
from sparsecomm.apps.torch.arrays import as_array, as_tensor, without_bfloat16
from sparsecomm.collectives.dispatch import Dispatch


def fetch(dispatch: Dispatch, x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return row `rows[i]` for every request i; the backward pass combines.

    The backward pass uses the plan of this call. Where another call has come since, it plans the requests again.

    Args:
        dispatch: over the ranks.
        x: (num_own, width) rows that this rank owns, of the dtype of `dispatch`, on the CPU.
        rows: (num_requests,) int64 global rows, with repeats.

    Returns:
        (num_requests, width).

    Raises:
        InputError: on all ranks, when an argument of one does not fit.

    Note: Collective over comm.
    """
    return _fetch(without_bfloat16(x), rows, handle_of(dispatch))[0]


def combine(dispatch: Dispatch, answers: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Return for every own row the sum of weight times answer over all requests for it; the backward pass fetches.

    Args:
        dispatch: whose last `fetch` made the requests.
        answers: (num_requests, width), in the order of the requests.
        weights: (num_requests,), which may learn; None is 1.

    Returns:
        (num_own, width) sums.

    Raises:
        InputError: on all ranks, when an argument of one does not fit.

    Note: Collective over comm.
    """
    weighted = answers if weights is None else answers * weights[:, None]
    return _combine(without_bfloat16(weighted), handle_of(dispatch))[0]


@torch.library.custom_op(
    "sparsecomm::fetch", mutates_args=(), schema="(Tensor x, Tensor rows, int handle) -> (Tensor, Tensor)"
)
def _fetch(x: torch.Tensor, rows: torch.Tensor, handle: int) -> tuple[torch.Tensor, torch.Tensor]:
    dispatch: Dispatch = thing_of(handle)
    found = dispatch.fetch(as_array(x), as_array(rows))
    return as_tensor(found), torch.tensor(dispatch.call)


@torch.library.custom_op(
    "sparsecomm::combine", mutates_args=(), schema="(Tensor answers, int handle) -> (Tensor, Tensor, Tensor)"
)
def _combine(answers: torch.Tensor, handle: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    dispatch: Dispatch = thing_of(handle)
    sums = dispatch.combine(as_array(answers))
    return as_tensor(sums), torch.tensor(dispatch.call), as_tensor(dispatch.requests.copy())


@torch.library.custom_op(
    "sparsecomm::fetch_of",
    mutates_args=(),
    schema="(Tensor x, Tensor call, Tensor rows, int handle) -> Tensor",
)
def _fetch_of(x: torch.Tensor, call: torch.Tensor, rows: torch.Tensor, handle: int) -> torch.Tensor:
    dispatch: Dispatch = thing_of(handle)
    dispatch.go_back(int(call), as_array(rows))
    return as_tensor(dispatch.fetch_again(as_array(x)))


@torch.library.custom_op(
    "sparsecomm::combine_of",
    mutates_args=(),
    schema="(Tensor answers, Tensor call, Tensor rows, int handle) -> Tensor",
)
def _combine_of(answers: torch.Tensor, call: torch.Tensor, rows: torch.Tensor, handle: int) -> torch.Tensor:
    dispatch: Dispatch = thing_of(handle)
    dispatch.go_back(int(call), as_array(rows))
    return as_tensor(dispatch.combine(as_array(answers)))


@_fetch.register_fake
def _(x: torch.Tensor, rows: torch.Tensor, handle: int) -> tuple[torch.Tensor, torch.Tensor]:
    return x.new_empty(rows.shape[0], x.shape[1]), rows.new_empty(())


@_combine.register_fake
def _(answers: torch.Tensor, handle: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rows = answers.new_empty(answers.shape[0], dtype=torch.int64)
    return answers.new_empty(thing_of(handle).num_own, answers.shape[1]), rows.new_empty(()), rows


@_fetch_of.register_fake
def _(x: torch.Tensor, call: torch.Tensor, rows: torch.Tensor, handle: int) -> torch.Tensor:
    return x.new_empty(rows.shape[0], x.shape[1])


@_combine_of.register_fake
def _(answers: torch.Tensor, call: torch.Tensor, rows: torch.Tensor, handle: int) -> torch.Tensor:
    return answers.new_empty(thing_of(handle).num_own, answers.shape[1])


def _keep_fetch(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    _, rows, ctx.handle = inputs
    ctx.save_for_backward(output[1], rows)


def _keep_combine(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    ctx.handle = inputs[1]
    ctx.save_for_backward(*output[1:])


def _keep_call(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    _, call, rows, ctx.handle = inputs
    ctx.save_for_backward(call, rows)


_fetch.register_autograd(
    lambda ctx, grad, _: (_combine_of(grad, *ctx.saved_tensors, ctx.handle), None, None), setup_context=_keep_fetch
)
_combine.register_autograd(
    lambda ctx, grad, *_: (_fetch_of(grad, *ctx.saved_tensors, ctx.handle), None), setup_context=_keep_combine
)
_fetch_of.register_autograd(
    lambda ctx, grad: (_combine_of(grad, *ctx.saved_tensors, ctx.handle), None, None, None), setup_context=_keep_call
)
_combine_of.register_autograd(
    lambda ctx, grad: (_fetch_of(grad, *ctx.saved_tensors, ctx.handle), None, None, None), setup_context=_keep_call
)
