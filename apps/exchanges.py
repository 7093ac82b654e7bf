"""The exchanges of a product, made when they are first needed and kept for every later one."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsecomm.collectives.exchange import Exchange
from sparsecomm.collectives.executed import Counter, Executed
from sparsecomm.collectives.proof import sent_slots
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.collectives.wire import Rows, WireDtype
from sparsecomm.plan import RankPlan
from sparsecomm.product import RankProduct
from sparsecomm.topology import Topology
from sparsecomm.typing import IntRank


class Exchanges:
    """What moves the rows of one product, for blocks of any width.

    Args:
        product: this rank's part of it.
        topology: of the job.
        transport: over its ranks.
        wire_dtype: what rows are rounded to on their way.
        rounds: post messages in rounds.
    """

    def __init__(
        self, product: RankProduct, topology: Topology, transport: Transport, wire_dtype: WireDtype, rounds: bool
    ) -> None:
        self._product, self._topology, self._transport = product, topology, transport
        self._wire, self._rounds = wire_dtype, rounds
        self._sent: dict[str, IntRank] = {}
        self._copied = 0
        self._made: dict[tuple[str, int, np.dtype[Any], int], Exchange] = {}

    def plan(self, name: str) -> RankPlan:
        """Return this rank's `gather` or `scatter` plan."""
        plan: RankPlan = getattr(self._product, name)
        return plan

    def get(self, name: str, width: int, dtype: np.dtype[Any], depth: int = 1) -> Exchange:
        """Return the exchange of a plan for blocks of a width, `depth` of which may be under way at once.

        Note: Collective over comm, the first time.
        """
        key = (name, width, dtype, depth)
        if key not in self._made:
            self._made[key] = Exchange(
                self.plan(name),
                self._transport,
                width,
                dtype,
                wire_dtype=self._wire,
                depth=depth,
                num_levels=self._topology.num_levels,
                rounds=self._rounds,
                name=name,
                topology=self._topology,
            )
        return self._made[key]

    def copy_sent(self, name: str, x: Rows, place: Rows) -> None:
        """Copy those rows of X to the memory of an exchange that any rank reads there."""
        if name not in self._sent:
            self._sent[name] = sent_slots(self.plan(name))
        sent = self._sent[name]
        if 2 * sent.size > len(x):
            np.copyto(place, x)
            self._copied += place.nbytes
        else:
            place[sent] = x[sent]
            self._copied += sent.size * place.shape[1] * place.itemsize

    @property
    def executed(self) -> Executed:
        """What they have moved, and what was copied for them."""
        copied = Counter(self._topology.num_levels)
        copied.copied[0] += self._copied
        return sum((exchange.executed for exchange in self._made.values()), copied.executed())

    def close(self) -> None:
        """Free them.

        Note: Collective over comm.
        """
        for exchange in self._made.values():
            exchange.close()
