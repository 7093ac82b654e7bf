"""Into how many chunks of columns products are cut: as given, or predicted and then tried over the first ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from sparsecomm.apps.blocks import Blocks
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.cost import CostModel
from sparsecomm.errors import InputError
from sparsecomm.product import RankProduct

NumChunks: TypeAlias = int | Literal["auto"] | None

_TIMES: Final = 5  # of each number, after one to warm up
_MOST: Final = 16
_WORTH: Final = 0.95  # of the time without chunks, at most: less than that is noise


class Chunks:
    """The number of chunks for every width.

    Args:
        given: the number; None or `auto` tries those that may be best.
        cost: predicts which these are.
        product: this rank's part.
        blocks: of its matrix.
        transport: over the ranks of the product.
    """

    def __init__(
        self, given: NumChunks, cost: CostModel, product: RankProduct, blocks: Blocks, transport: Transport
    ) -> None:
        self.given = None if given == "auto" else given
        self._cost, self._product, self._blocks, self._transport = cost, product, blocks, transport
        self._known: dict[tuple[str, int, np.dtype[Any]], Tuning] = {}

    def tuning(self, gather: str, width: int, dtype: np.dtype[Any]) -> Tuning:
        """Return what knows the number for X of a width and dtype, whose ghosts the plan `gather` brings.

        Note: Collective over comm, the first time that nothing is given.
        """
        key = (gather, width, dtype)
        if key not in self._known:
            tried = [self.given] if self.given is not None else self._likely(width, dtype.itemsize)
            self._known[key] = Tuning(tried, self._transport)
        return self._known[key]

    def _likely(self, width: int, itemsize: int) -> list[int]:
        volume = self._product.volume(self._cost.topology, self._transport)
        own, *others = (block.nnz for block in self._blocks.all)
        rows = self._product.scatter.num_own
        loads = self._transport.reduce(np.array([own, sum(others), rows], dtype=np.int64), "max").tolist()
        row_bytes = width * itemsize
        own_s = self._cost.product_s(loads[0], loads[2], row_bytes, itemsize)
        ghosts_s = self._cost.product_s(loads[1], 0, row_bytes, itemsize)
        phases = [self._cost.estimate(phase, width, itemsize) for phase in volume.phases or (volume,)]
        moving = [sum(level.moving_s for level in phase.levels) for phase in phases]
        moving[0] = max(0.0, moving[0] - own_s)
        starts_s = sum(level.latency_s + phase.launch_s for phase in phases for level in phase.levels)
        return likely_chunks([ghosts_s, *moving], starts_s, width)


class Tuning:
    """Lets numbers of chunks take turns, and keeps the one whose products take least.

    Args:
        tried: the numbers; the first is kept unless another is clearly faster.
        transport: over the ranks, which keep the same one.

    Attributes:
        kept: the number that won; None while products are still made to find out.
        seconds: median of a product by number, its slowest rank counting; empty where nothing was tried.
    """

    def __init__(self, tried: Sequence[int], transport: Transport) -> None:
        self._tried, self._transport = tried, transport
        self._times: list[float] = []
        self.kept = tried[0] if len(tried) == 1 else None
        self.seconds: dict[int, float] = {}

    def begin(self) -> int:
        """Return the number for the next product, which all ranks begin together: none pays for the one before.

        Note: Collective over comm.
        """
        self._transport.barrier()
        turn, place = divmod(len(self._times), len(self._tried))
        return self._tried[place if turn % 2 == 0 else -1 - place]  # nobody always comes after the same other one

    def took(self, seconds: float) -> None:
        """Note what the product took on this rank; after the last, keep a number.

        Note: Collective over comm, after the last.
        """
        self._times.append(seconds)
        if len(self._times) < (_TIMES + 1) * len(self._tried):
            return
        times = self._transport.reduce(np.array(self._times), "max").reshape(_TIMES + 1, -1)
        times[1::2] = times[1::2, ::-1]
        self.seconds = dict(zip(self._tried, np.median(times[1:], axis=0).tolist(), strict=True))
        ratios = np.median(times[1:] / times[1:, :1], axis=0)  # within each turn: what disturbs one disturbs all
        best = int(ratios.argmin())
        self.kept = self._tried[best if ratios[best] < _WORTH else 0]


def likely_chunks(steps_s: Sequence[float], starts_s: float, width: int) -> list[int]:
    """Return the numbers of chunks that are worth a trial, ascending; 1 is always among them.

    Args:
        steps_s: what chunks go through one after the other, for the whole width.
        starts_s: what every chunk takes beside.
        width: columns.

    Source: derived: cut into m, steps take sum(t)/m + (m-1)/m max(t) + m a, with t the steps and a the starts; that is
        least at the square root of (sum(t) - max(t)) / a. Powers of two beside it are tried too.
    """
    hidden_s = sum(steps_s) - max(steps_s)
    best = math.sqrt(hidden_s / starts_s) if starts_s else (_MOST if hidden_s else 1)
    if best < math.sqrt(2):  # as much for the starts of two chunks as they would hide
        return [1]
    near = 2 ** round(math.log2(best))
    return sorted({1} | {min(number, width, _MOST) for number in (near // 2, near, 2 * near) if number})


def wrong_chunks(chunks: object) -> InputError | None:
    """Return what is wrong with a number of chunks."""
    if chunks is None or (isinstance(chunks, str) and chunks == "auto"):
        return None
    if isinstance(chunks, int | np.integer) and not isinstance(chunks, bool) and chunks >= 1:
        return None
    return InputError(f"chunks must be a whole number of chunks of columns, at least 1, or 'auto', not {chunks!r}")
