"""In which order a layer multiplies A, X and W, so that the narrower rows travel, and when the input layer is kept."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

from sparsecomm.errors import InputError

Order = Literal["cached", "transform", "aggregate"]
"""`cached`: what A does to the input features is fetched once; `transform`: A (X W); `aggregate`: (A X) W."""


def choose_orders(widths: Sequence[int], epochs: int, *, cache: bool = True) -> list[Order]:
    """Return the order of every layer of a model without biases between A and W.

    Rows of A @ X travel with `f_in` columns, those of A @ (X W) with `f_out`, forwards and backwards alike. The input
    features do not change: fetched once with `f_in` columns they save both passes of every epoch.

    Args:
        widths: of the features, of every hidden layer, and of the output.
        epochs: that will be trained.
        cache: whether there is memory for the features of ghost nodes.

    Raises:
        InputError: fewer than two widths, or one that is not positive.

    Source: the operator reordering of arXiv 2308.12093, rules derived anew.

    Example:
        >>> choose_orders([1433, 16, 7], epochs=200)
        ['cached', 'transform']
        >>> choose_orders([1433, 16, 7], epochs=1)
        ['transform', 'transform']
    """
    if len(widths) < 2 or min(widths) < 1:
        raise InputError(f"a model needs an input and an output of at least one column, not widths {list(widths)}")
    orders: list[Order] = ["transform" if f_out <= f_in else "aggregate" for f_in, f_out in pairs(widths)]
    if cache and widths[0] < 2 * epochs * min(widths[:2]):
        orders[0] = "cached"
    return orders


def moved_widths(widths: Sequence[int], orders: Sequence[Order]) -> list[int]:
    """Return how many columns of each layer travel in one training step, forwards and backwards together."""
    moved = []
    for layer, ((f_in, f_out), order) in enumerate(zip(pairs(widths), orders, strict=True)):
        # The input needs no gradient: aggregated first, nothing of the first layer comes back.
        passes = 1 if layer == 0 and order == "aggregate" else 2
        moved.append(0 if order == "cached" else passes * (f_out if order == "transform" else f_in))
    return moved


def pairs(widths: Sequence[int]) -> list[tuple[int, int]]:
    """Return (f_in, f_out) of every layer."""
    return list(itertools.pairwise(widths))
