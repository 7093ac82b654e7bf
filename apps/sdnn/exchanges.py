"""Exchanges of the layers, kept while they may be used again."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import numpy as np

from sparsecomm.collectives.exchange import Exchange
from sparsecomm.collectives.executed import Executed
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.plan import RankPlan

# Runs under way at once: the next batch travels while this one is multiplied.
DEPTH: Final = 2


class Exchanges:
    """Exchanges by pattern and width; those not used for longest make room.

    Args:
        transport: over the ranks.
        num_levels: of the topology.
        most: how many are kept, the same on all ranks, at least 1.
    """

    def __init__(self, transport: Transport, num_levels: int, most: int) -> None:
        self._transport, self._num_levels, self._most = transport, num_levels, most
        self._kept: OrderedDict[tuple[str, int], Exchange] = OrderedDict()
        empty = np.zeros(num_levels, dtype=np.int64)
        self._past = Executed(*[empty] * len(Executed.__dataclass_fields__))
        self.made = self.used = 0

    def get(self, key: str, plan: RankPlan, width: int) -> Exchange:
        """Return the exchange of a pattern at a width; ask for the same ones in the same order on all ranks.

        Note: Collective over comm.
        """
        self.used += 1
        if (key, width) in self._kept:
            self._kept.move_to_end((key, width))
            return self._kept[key, width]
        if len(self._kept) >= self._most:
            self._drop(self._kept.popitem(last=False)[1])
        self.made += 1
        exchange = Exchange(plan, self._transport, width, np.float32, depth=DEPTH, num_levels=self._num_levels)
        self._kept[key, width] = exchange
        return exchange

    def executed(self) -> Executed:
        """Return what this rank has moved by all exchanges, also those that made room."""
        return sum((exchange.executed for exchange in self._kept.values()), self._past)

    def close(self) -> None:
        """Close all.

        Note: Collective over comm.
        """
        while self._kept:
            self._drop(self._kept.popitem(last=False)[1])

    def _drop(self, exchange: Exchange) -> None:
        self._past = self._past + exchange.executed
        exchange.close()
