"""Which message waits for which, and what moving rows costs."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from sparsecomm.collectives.buffers import BufferSet, Memory, RowFormat, Shelf, add_rows, scratch_for
from sparsecomm.collectives.schedule import Schedule
from sparsecomm.plan import Messages, RankPlan, RankStage
from tests.reference_plans import direct_plan, hub_plan, random_case

FLOATS = RowFormat.of(16, np.float32, None, 2)


def buffers_of(schedule: Schedule) -> BufferSet:
    scratch = scratch_for(schedule, FLOATS, Shelf())
    shelf = Shelf()
    return BufferSet(schedule, FLOATS, scratch, shelf, Memory.private(schedule, FLOATS, shelf))


MAKERS = pytest.mark.parametrize("make", [Schedule.forward, Schedule.reverse])


@MAKERS
@pytest.mark.parametrize("seed", range(4))
def test_messages_wait_for_just_the_writers_of_their_slots(make: Callable[[RankPlan], Schedule], seed: int) -> None:
    for part in hub_plan(random_case(6, seed)).shards():
        schedule = make(part)
        writers: dict[int, list[int]] = {}
        for number, message in enumerate(schedule.recvs):
            before = {writers[slot][-1] for slot in message.slots.tolist() if slot in writers}
            assert before == {r for r, after in enumerate(schedule.then_recvs) if number in after}
            assert schedule.recv_waits[number] == len(before)
            for slot in message.slots.tolist():
                writers.setdefault(slot, []).append(number)
        for number, message in enumerate(schedule.sends):
            last = {writers[slot][-1] for slot in message.slots.tolist() if slot in writers}
            assert last == {r for r, after in enumerate(schedule.then_sends) if number in after}
            assert schedule.send_waits[number] == len(last)


def test_a_late_stage_that_reads_own_rows_leaves_at_once() -> None:
    schedules = [Schedule.forward(part) for part in hub_plan(random_case(6)).shards()]
    late = [wait for s in schedules for m, wait in zip(s.sends, s.send_waits, strict=True) if m.stage > 0]
    assert 0 in late
    assert max(late) > 0


def test_order_of_arrivals_is_stages_backwards_then_peers() -> None:
    for part in hub_plan(random_case(6)).shards():
        keys = [(-message.stage, message.peer) for message in Schedule.reverse(part).recvs]
        assert keys == sorted(keys)


def test_direct_plan_lands_in_the_ghost_slots() -> None:
    """Ghosts ascend and owners own ranges, so what one owner sends lies side by side."""
    for part in direct_plan(random_case(6)).shards():
        schedule = Schedule.forward(part)
        buffers = buffers_of(schedule)
        assert buffers.unpacks == [None] * len(schedule.recvs)
        assert all(np.shares_memory(rows, buffers.slots) for rows in buffers.recvs)


@pytest.mark.parametrize("direction", [Schedule.forward, Schedule.reverse])
def test_moving_rows_allocates_nothing(direction: Callable[[RankPlan], Schedule]) -> None:
    rng = np.random.default_rng(0)
    some = [np.sort(rng.choice(4000, 1000, replace=False)).astype(np.int32) for _ in range(2)]
    peers = np.repeat(np.array([1, 2], dtype=np.int32), 1000)
    both = Messages.of(peers, np.concatenate(some))
    ghosts = Messages.of(peers, rng.permutation(2000).astype(np.int32) + 4000)
    part = RankPlan(0, 0, 4000, np.arange(2000) + 4000, np.zeros(0, np.int64), (RankStage(0, both, ghosts),))
    schedule = direction(part)
    buffers = buffers_of(schedule)
    moves = [move for move in (*buffers.packs, *buffers.unpacks) if move is not None]
    assert len(moves) == 4
    tracemalloc.start()
    for move in moves:
        move()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16_000  # a message has 64,000 bytes


def test_add_rows_goes_in_blocks_of_the_scratch() -> None:
    target, rows = np.zeros((10, 2)), np.arange(14.0).reshape(7, 2)
    index = np.array([9, 0, 3, 4, 8, 2, 1])
    add_rows(target, index, rows, np.empty((3, 2)))
    np.testing.assert_array_equal(target[index], rows)
    add_rows(target, index[:0], rows[:0], np.empty((0, 2)))
