"""Dropout that knows entries by their global place: the same masks on any number of ranks, and after a restart."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch

from sparsecomm.apps.torch.arrays import as_tensor
from sparsecomm.hashing import hash_rows, splitmix
from sparsecomm.typing import Bools, IntGlobal

_GOLDEN: Final = 0x9E3779B97F4A7C15


class Coins:
    """Coins to throw for entries, again in every step.

    Args:
        seed: of the run.
        place: columns of integers, (n,) each, that name the entries over the whole matrix.
    """

    def __init__(self, seed: int, *place: IntGlobal) -> None:
        self._hashes = hash_rows([np.full(place[0].size, seed), *place])

    def keep(self, step: int, rate: float) -> Bools:
        """Return, (n,) bool, which entries stay when a share of `rate` is dropped."""
        key = np.uint64(step * _GOLDEN % 2**64)
        return np.asarray(splitmix(self._hashes ^ key) >= np.uint64(rate * 2**64))


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
        keep = as_tensor(self._of_width(x.shape[1]).keep(step, self.rate)).reshape(x.shape)
        return x * (keep.to(x.dtype) / (1 - self.rate))

    def _of_width(self, width: int) -> Coins:
        if width not in self._coins:
            columns = np.tile(np.arange(width), self._rows.size)
            layer: Any = np.full(columns.size, self._layer)
            self._coins[width] = Coins(self._seed, np.repeat(self._rows, width), columns, layer)
        return self._coins[width]
