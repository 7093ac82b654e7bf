"""The messages of one rank in one direction, and which of them wait for which."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sparsecomm.plan import Messages, RankPlan, RankStage
from sparsecomm.typing import Bools, IntGlobal, IntRank

_EMPTY, _GIVEN = -1, -2  # what a slot holds before any message has written it


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """Rows of one rank that leave for, or come from, one peer in one stage.

    Args:
        stage: number of the stage in the plan.
        level: of the stage.
        peer: the other rank.
        slots: (num_rows,) int64, in the order in which the rows lie in the message.
        fresh: (num_rows,) whether the slot is empty until then: neither given rows nor written by an earlier message.
    """

    stage: int
    level: int
    peer: int
    slots: IntGlobal
    fresh: Bools

    @property
    def num_rows(self) -> int:
        return self.slots.size


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """What one rank sends and receives in one direction of a plan.

    Slots are [own | ghost | staging] forward. In reverse only the own rows that receive anything have slots:
    [touched own | ghost | staging].

    Args:
        num_slots: slots of the direction.
        first_ghost: the slot of the first ghost.
        touched: (num_touched,) int64, the own rows that messages write, ascending.
        sends, recvs: in canonical order (order of stages in this direction, then peer).
        recv_waits: for each receive, how many receives must be taken in before it.
        send_waits: for each send, how many receives must be taken in before it may leave.
        then_recvs, then_sends: for each receive, the receives and the sends that wait for it.
        dealt: whether the sends of a stage stand in the order of rounds.
    """

    num_slots: int
    first_ghost: int
    touched: IntGlobal
    sends: tuple[Message, ...]
    recvs: tuple[Message, ...]
    recv_waits: tuple[int, ...]
    send_waits: tuple[int, ...]
    then_recvs: tuple[tuple[int, ...], ...]
    then_sends: tuple[tuple[int, ...], ...]
    dealt: bool = False

    def in_rounds(self, rounds: Sequence[IntRank]) -> Schedule:
        """Return the same schedule with the sends of every stage in the order of their rounds.

        Args:
            rounds: for every stage of the plan the round of each send, in the order of their peers.
        """
        numbers = [iter(stage.tolist()) for stage in rounds]
        stages = {stage: turn for turn, stage in enumerate(dict.fromkeys(message.stage for message in self.sends))}
        dealt = [(stages[message.stage], next(numbers[message.stage])) for message in self.sends]
        order = sorted(range(len(dealt)), key=dealt.__getitem__)
        place = {send: i for i, send in enumerate(order)}
        return replace(
            self,
            sends=tuple(self.sends[i] for i in order),
            send_waits=tuple(self.send_waits[i] for i in order),
            then_sends=tuple(tuple(sorted(place[send] for send in sends)) for sends in self.then_sends),
            dealt=True,
        )

    @staticmethod
    def forward(plan: RankPlan) -> Schedule:
        """Make the schedule of the gather: owners to users."""
        sends = [m for t, stage in enumerate(plan.stages) for m in _messages(t, stage, stage.send)]
        recvs = [m for t, stage in enumerate(plan.stages) for m in _messages(t, stage, stage.recv)]
        own, none = plan.num_own, np.zeros(0, dtype=np.int64)
        return _schedule(plan.num_slots, range(own), own, own, none, sends, recvs)

    @staticmethod
    def reverse(plan: RankPlan) -> Schedule:
        """Make the schedule of the scatter: users to owners, stages backwards."""
        backwards = list(reversed(list(enumerate(plan.stages))))
        read = [stage.send.slots[stage.send.slots < plan.num_own] for stage in plan.stages]
        touched = np.unique(np.concatenate([np.zeros(0, dtype=np.int32), *read])).astype(np.int64)
        sends = [m for t, stage in backwards for m in _messages(t, stage, stage.recv)]
        recvs = [m for t, stage in backwards for m in _messages(t, stage, stage.send)]
        shift = touched.size - plan.num_own
        moved = [[_renumber(m, touched, plan.num_own) for m in side] for side in (sends, recvs)]
        given = range(touched.size, touched.size + plan.num_ghost)
        return _schedule(plan.num_slots + shift, given, 0, touched.size, touched, *moved)


def _messages(number: int, stage: RankStage, side: Messages) -> Iterator[Message]:
    for i, peer in enumerate(side.peers):
        slots = side.slots[side.indptr[i] : side.indptr[i + 1]].astype(np.int64)
        yield Message(number, stage.level, int(peer), slots, np.ones(slots.size, dtype=np.bool_))


def _renumber(message: Message, touched: IntGlobal, num_own: int) -> Message:
    own = np.searchsorted(touched, message.slots)
    return replace(message, slots=np.where(message.slots < num_own, own, message.slots - num_own + touched.size))


def _schedule(
    num_slots: int,
    given: range,
    num_fixed: int,
    first_ghost: int,
    touched: IntGlobal,
    sends: list[Message],
    recvs: list[Message],
) -> Schedule:
    writers = _Writers(num_slots, given, num_fixed)
    earlier = [writers.take_turn(number, message.slots) for number, message in enumerate(recvs)]
    recv_needs = [_messages_of(before) for before in earlier]
    send_needs = [_messages_of(writers.of(message.slots)) for message in sends]
    return Schedule(
        num_slots,
        first_ghost,
        touched,
        tuple(sends),
        tuple(replace(message, fresh=before == _EMPTY) for message, before in zip(recvs, earlier, strict=True)),
        tuple(needs.size for needs in recv_needs),
        tuple(needs.size for needs in send_needs),
        _followers(len(recvs), recv_needs),
        _followers(len(recvs), send_needs),
    )


class _Writers:
    """The last message so far that writes each slot.

    Args:
        num_slots: of the direction.
        given: slots that are filled when a run begins.
        num_fixed: the first so many are given and no message writes them: the own rows of a gather. They share one
            entry, the last, so that they cost no memory.
    """

    def __init__(self, num_slots: int, given: range, num_fixed: int) -> None:
        self._first = num_fixed
        self._last = np.full(num_slots - num_fixed + 1, _EMPTY, dtype=np.int32)
        self._last[max(given.start - num_fixed, 0) : given.stop - num_fixed] = _GIVEN
        self._last[-1] = _GIVEN

    def of(self, slots: IntGlobal) -> IntRank:
        return self._last[np.maximum(slots - self._first, -1)]

    def take_turn(self, number: int, slots: IntGlobal) -> IntRank:
        """Return the last message so far that writes each of `slots`, and make `number` the last."""
        before = self.of(slots)
        self._last[np.maximum(slots - self._first, -1)] = number
        return before


def _messages_of(writers: IntRank) -> IntRank:
    return np.unique(writers[writers >= 0])


def _followers(num_recvs: int, needed: list[IntRank]) -> tuple[tuple[int, ...], ...]:
    followers: list[list[int]] = [[] for _ in range(num_recvs)]
    for number, before in enumerate(needed):
        for recv in before.tolist():
            followers[recv].append(number)
    return tuple(map(tuple, followers))
