"""How a long run of products goes on, for a line on a terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from sparsecomm.apps.source import Say

_EVERY_S: Final = 0.2


class Pace:
    """Tells now and then how far a run has come, how fast it is and how long it will take.

    Args:
        say: told; on rank 0 of a job.
        total: products that will be made.
        level_bytes: level -> bytes that all ranks together move in one product.
        imbalance: of the nonzeros, largest over mean load of a rank.
    """

    def __init__(self, say: Say, total: int, level_bytes: Mapping[str, int], imbalance: float) -> None:
        self._say, self._total, self._level_bytes, self._imbalance = say, total, level_bytes, imbalance
        self._began = self._told = time.monotonic()

    def made(self, count: int) -> None:
        """Note that so many products are made."""
        now = time.monotonic()
        if now - self._told >= _EVERY_S:
            self._told = now
            self._say(self.line(count, now - self._began))

    def line(self, count: int, seconds: float) -> str:
        """Return what there is to say after `count` products in `seconds`."""
        each = seconds / count
        speeds = ", ".join(f"{name} {size / each / 1e6:,.0f} MB/s" for name, size in self._level_bytes.items() if size)
        place, left = f"product {count:,} of {self._total:,}", (self._total - count) * each
        facts = f"{1e3 * each:,.1f} ms each, {speeds or 'nothing moves'}, imbalance {self._imbalance:.2f}"
        return f"{place}: {facts}, {left:,.0f} s left"
