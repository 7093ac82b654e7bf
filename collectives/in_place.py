"""Which rows of others a rank reads where they lie: the compile step for levels whose ranks share memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sparsecomm.collectives.schedule import Message, Schedule
from sparsecomm.collectives.transport.base import Transport, agreed
from sparsecomm.errors import PlanError
from sparsecomm.plan import Messages, RankPlan
from sparsecomm.table import Table
from sparsecomm.typing import IntGlobal, IntRank


@dataclass(frozen=True, slots=True, eq=False)
class InPlace:
    """One direction of a plan as one rank runs it where the inner levels share memory.

    The memories of all ranks that share it lie one after the other in one array; its rows are the *node rows*.
    Messages of shared levels carry no rows: they tell that rows may be read.

    Args:
        num_shared: how many levels, the innermost, share memory.
        schedule: sends name node rows, receives rows of the rank's own memory.
        first: the node row where the memory of this rank begins.
        total: node rows in all.
        places: (num_ghost,) node rows where the ghosts are; forward only.
        pulls: for each receive the node rows to add to its slots, None where rows come in a message or stay where
            they are.
        near: the ranks that share memory with this one, itself among them, ascending.
        readers: those that read the memory of this one, ascending.
    """

    num_shared: int
    schedule: Schedule
    first: int
    total: int
    places: IntGlobal
    pulls: tuple[IntGlobal | None, ...]
    near: IntRank
    readers: IntRank

    @property
    def own(self) -> slice:
        """The node rows that are this rank's memory."""
        return slice(self.first, self.first + self.schedule.num_slots)


def shared_levels(plan: RankPlan, transport: Transport) -> int:
    """Return how many of the levels that the transport is told to share every rank can share, on all ranks the same.

    Note: Collective over comm.
    """
    return near_levels(plan, transport, transport.num_shared)


def near_levels(plan: RankPlan, transport: Transport, asked: int) -> int:
    """Return how many of the `asked` innermost levels join only ranks that share memory, on all ranks the same.

    Note: Collective over comm.
    """
    if asked == 0:
        return 0
    near = transport.neighbours()
    apart = [
        stage.level for stage in plan.stages for side in (stage.send, stage.recv) if not np.isin(side.peers, near).all()
    ]
    return asked - int(
        transport.reduce(np.array([max(0, asked - min(apart, default=asked))], dtype=np.int64), "max")[0]
    )


def read_forward(plan: RankPlan, transport: Transport, num_shared: int) -> InPlace:
    """Follow every slot of a gather back to the memory in which its row really lies, its home.

    Only own rows and rows that come over levels that are not shared take memory.

    Raises:
        PlanError: on all ranks, when a ghost of one has no home: the plan does not bring it.

    Note: Collective over comm.
    """
    schedule, num_own = Schedule.forward(plan), plan.num_own
    landed = np.zeros(plan.num_slots - num_own, dtype=np.bool_)
    for stage in plan.stages:
        if stage.level >= num_shared:
            landed[stage.recv.slots - num_own] = True
    memory = num_own + np.cumsum(landed) - 1
    space = _Space(num_own + int(landed.sum()), transport)
    homes = np.where(landed, space.first + memory, -1)

    def home(slots: IntGlobal) -> IntGlobal:
        held = np.append(homes, -1)[np.maximum(slots - num_own, -1)]
        return np.where(slots < num_own, space.first + slots, held)

    for stage in plan.stages:
        if stage.level < num_shared:
            homes[stage.recv.slots - num_own] = _passed(home(stage.send.slots.astype(np.int64)), stage.send, transport)
    places = homes[: plan.num_ghost].copy()
    agreed(transport, lambda: _check_homes(plan, places))
    sends = tuple(replace(message, slots=home(message.slots)) for message in schedule.sends)
    recvs = tuple(
        message if message.level < num_shared else replace(message, slots=memory[message.slots - num_own])
        for message in schedule.recvs
    )
    sources = space.others([places, *(message.slots for message in sends if message.level >= num_shared)])
    told = Table(np.full(sources.size, plan.rank, dtype=np.int32), {"reader": np.full(sources.size, plan.rank)})
    readers = transport.route(told, sources)["reader"].astype(np.int32)
    made = replace(schedule, num_slots=space.num_rows, sends=sends, recvs=recvs)
    return InPlace(num_shared, made, space.first, space.total, places, (None,) * len(recvs), space.ranks, readers)


def read_reverse(plan: RankPlan, transport: Transport, num_shared: int) -> InPlace:
    """Find where the partial rows lie that this rank adds up: holders read, users never write.

    Note: Collective over comm.
    """
    schedule = Schedule.reverse(plan)
    space = _Space(schedule.num_slots, transport)
    sends = tuple(replace(message, slots=message.slots + space.first) for message in schedule.sends)
    pulls: dict[tuple[int, int], IntGlobal] = {}
    for number, stage in reversed(list(enumerate(plan.stages))):
        if stage.level < num_shared:
            leaving = [message.slots for message in sends if message.stage == number]
            rows = _passed(np.concatenate([np.empty(0, dtype=np.int64), *leaving]), stage.recv, transport)
            parts = np.split(rows, stage.send.indptr[1:-1])
            pulls |= {(number, int(peer)): part for peer, part in zip(stage.send.peers, parts, strict=False)}
    return InPlace(
        num_shared,
        replace(schedule, sends=sends),
        space.first,
        space.total,
        np.empty(0, dtype=np.int64),
        tuple(pulls.get((message.stage, message.peer)) for message in schedule.recvs),
        space.ranks,
        _near_peers(schedule.sends, num_shared),
    )


class _Space:
    """The array that holds the memories of all ranks that share it.

    Note: Collective over comm.
    """

    def __init__(self, num_rows: int, transport: Transport) -> None:
        self.num_rows, self._rank = num_rows, transport.rank
        self.ranks = transport.neighbours()
        counts = transport.collect(np.array([num_rows], dtype=np.int64))[self.ranks]
        ends = np.cumsum(counts)
        self._starts, self.total = ends - counts, int(ends[-1])
        self.first = int(self._starts[np.searchsorted(self.ranks, self._rank)])

    def others(self, node_rows: Sequence[IntGlobal]) -> IntRank:
        """Return the other ranks in whose memory the rows are, ascending."""
        owner = np.searchsorted(self._starts, np.concatenate(node_rows), side="right") - 1
        ranks = self.ranks[np.unique(owner)]
        return np.asarray(ranks[ranks != self._rank], dtype=np.int32)


def _passed(rows: IntGlobal, messages: Messages, transport: Transport) -> IntGlobal:
    """Give each peer the numbers that belong to its message and return what came, in the order of the other side.

    Note: Collective over comm.
    """
    to_rank = np.repeat(messages.peers, np.diff(messages.indptr))
    return transport.route(Table(np.full(rows.size, transport.rank, dtype=np.int32), {"row": rows}), to_rank)["row"]


def _near_peers(messages: Sequence[Message], num_shared: int) -> IntRank:
    return np.unique(np.array([m.peer for m in messages if m.level < num_shared], dtype=np.int32))


def _check_homes(plan: RankPlan, places: IntGlobal) -> None:
    lost = np.flatnonzero(places < 0)
    if lost.size:
        raise PlanError(f"no stage of the plan brings rank {plan.rank} its ghost row {plan.ghost_rows[lost[0]]}")
