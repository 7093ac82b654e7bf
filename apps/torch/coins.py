"""Dropout that knows entries by their global place: the same masks on any number of ranks, and after a restart."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from sparsecomm.apps.torch.arrays import as_array, as_tensor, without_bfloat16
from sparsecomm.hashing import hash_rows
from sparsecomm.typing import IntGlobal

_GOLDEN: Final = 0x9E3779B97F4A7C15


class Coins:
    """Coins to throw for entries, again in every step.

    Args:
        seed: of the run.
        place: columns of integers, (n,) each, that name the entries over the whole matrix.
    """

    def __init__(self, seed: int, *place: IntGlobal) -> None:
        self._hashes = hash_rows([np.full(place[0].size, seed), *place])

    def dropped(self, values: npt.NDArray[Any], step: int, rate: float) -> npt.NDArray[Any]:
        """Return values, one for each entry, with a share of `rate` set to zero and the others scaled up."""
        from sparsecomm.apps.torch.coin_loops import drop  # which loads numba

        out = np.empty(values.shape, dtype=values.dtype)
        key, least = np.uint64(step * _GOLDEN % 2**64), np.uint64(rate * 2**64)
        drop(self._hashes, key, least, values.dtype.type(1 / (1 - rate)), values.reshape(-1), out.reshape(-1))
        return out

    def __call__(self, x: torch.Tensor, step: int | None, rate: float) -> torch.Tensor:
        """Return a tensor, one entry after the other, with entries dropped; as it is where `step` is None."""
        return x if step is None or rate == 0 else _Dropped.apply(without_bfloat16(x), self, step, rate)


class _Dropped(torch.autograd.Function):
    """The same coins are thrown again for the gradient, so that no mask is kept."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, coins: Coins, step: int, rate: float) -> torch.Tensor:
        ctx.thrown = coins, step, rate
        return as_tensor(coins.dropped(as_array(x), step, rate))

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        coins, step, rate = ctx.thrown
        return as_tensor(coins.dropped(as_array(grad), step, rate)), None, None, None


class RowDropout:
    """Dropout of (rows, width) blocks whose rows are known by their global number.

    Args:
        seed: of the run.
        layer: another one for every block of a model.
        rows: (n,) int64 global rows.
        rate: share of the entries that is dropped.
    """

    def __init__(self, seed: int, layer: int, rows: IntGlobal, rate: float) -> None:
        self._seed, self._layer, self._rows, self.rate = seed, layer, rows, rate
        self._coins: dict[int, Coins] = {}

    def __call__(self, x: torch.Tensor, step: int | None) -> torch.Tensor:
        """Return the block with entries dropped and the others scaled; as it is where `step` is None."""
        if step is None or self.rate == 0:
            return x
        return self._of_width(x.shape[1])(x, step, self.rate)

    def _of_width(self, width: int) -> Coins:
        if width not in self._coins:
            columns = np.tile(np.arange(width), self._rows.size)
            layer: Any = np.full(columns.size, self._layer)
            self._coins[width] = Coins(self._seed, np.repeat(self._rows, width), columns, layer)
        return self._coins[width]
