"""Runs whose messages are small and wait for nothing: packed, sent, counted and taken in all together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import add
from typing import Final

import numpy as np

from sparsecomm.collectives.buffers import BufferSet, Move
from sparsecomm.collectives.executed import Counter
from sparsecomm.collectives.schedule import Schedule
from sparsecomm.collectives.transport.base import Arrival, Transport
from sparsecomm.collectives.wire import RowFormat
from sparsecomm.plan import RankPlan

# Messages that take less time to pack than a rank takes to hand each of them over.
_SMALL_BYTES: Final = 1 << 14


@dataclass(frozen=True, slots=True, eq=False)
class Burst:
    """What a run does at once, and the sums that it counts then.

    Args:
        packs, unpacks: in the order of the schedule, those that there are.
        arrivals: of all receives, each whole.
        sent, received: arguments of `Counter.sent` and `Counter.received`, one for each level.
        loaded: levels whose rows stay where they are, and the bytes of these.
        landed: what a run knows of its receives once all are there.
    """

    packs: tuple[Move, ...]
    unpacks: tuple[Move, ...]
    arrivals: list[Arrival]
    sent: tuple[tuple[int, ...], ...]
    received: tuple[tuple[int, ...], ...]
    loaded: tuple[tuple[int, ...], ...]
    landed: list[bool]

    @staticmethod
    def of(schedule: Schedule, buffers: BufferSet, pieces: Sequence[int], form: RowFormat) -> Burst | None:
        """Return the burst of a run none of whose sends waits for a receive; None where messages are not small."""
        sizes, came = ([rows.nbytes for rows in side] for side in (buffers.sends, buffers.recvs))
        if max(sum(sizes), sum(came)) > _SMALL_BYTES or not schedule.recvs:
            return None
        sends = zip(schedule.sends, sizes, pieces, strict=True)
        recvs = list(zip(schedule.recvs, came, strict=True))
        still = [(m.level, (m.num_rows * form.row_bytes[m.level],)) for m, num_bytes in recvs if num_bytes == 0]
        return Burst(
            tuple(pack for pack in buffers.packs if pack is not None),
            tuple(unpack for unpack in buffers.unpacks if unpack is not None),
            [Arrival(index, num_bytes) for index, num_bytes in enumerate(came)],
            _by_level((m.level, (m.num_rows, size, parts, 1)) for m, size, parts in sends),
            _by_level((m.level, (m.num_rows, num_bytes, 1)) for m, num_bytes in recvs),
            _by_level(still),
            [True] * len(came),
        )

    @property
    def loads_little(self) -> bool:
        """Whether the rows that are read where they lie take less time than a rank takes to look for their messages."""
        return sum(num_bytes for _, num_bytes in self.loaded) <= _SMALL_BYTES

    def count(self, counter: Counter, times: int) -> None:
        """Count so many runs."""
        for level, *counts in self.sent:
            counter.sent(level, *(times * one for one in counts))
        for level, *counts in self.received:
            counter.received(level, *(times * one for one in counts))
        for level, num_bytes in self.loaded:
            counter.loaded[level] += times * num_bytes


def moves_as_one(plan: RankPlan, transport: Transport, form: RowFormat, refused: bool) -> bool:
    """Say whether runs that repeat had better go on as one call of all ranks; all ranks say the same.

    Args:
        plan, transport, form: of the exchange.
        refused: whether something else on this rank stands against it.

    Note: Collective over comm.
    """
    facts = np.array([0, 0, refused or not transport.wins_as_one or not _leaves_at_once(plan)], dtype=np.int64)
    for side in ([stage.send for stage in plan.stages], [stage.recv for stage in plan.stages]):
        num_bytes = sum(part.slots.size * form.row_bytes[s.level] for part, s in zip(side, plan.stages, strict=True))
        peers = np.concatenate([part.peers for part in side]) if side else np.zeros(0, dtype=np.int32)
        repeats = peers.size > np.unique(peers).size
        facts = np.maximum(facts, [num_bytes, peers.size, repeats])
    most_bytes, most_messages, refusals = transport.reduce(facts, "max").tolist()
    return not refusals and most_bytes <= _SMALL_BYTES and most_messages > 0


def _leaves_at_once(plan: RankPlan) -> bool:
    """Say whether only own rows are sent, so that forwards and in reverse nothing waits for what comes."""
    return all(bool((stage.send.slots < plan.num_own).all()) for stage in plan.stages)


def _by_level(counts: Iterable[tuple[int, tuple[int, ...]]]) -> tuple[tuple[int, ...], ...]:
    """Return the sums of the counts of every level, behind its number."""
    sums: dict[int, tuple[int, ...]] = {}
    for level, more in counts:
        sums[level] = tuple(map(add, sums.get(level, (0,) * len(more)), more))
    return tuple((level, *total) for level, total in sums.items())
