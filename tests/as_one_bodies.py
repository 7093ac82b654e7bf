"""Small runs that repeat go on as one call of all ranks: one body for every transport, collective over the ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from sparsecomm.collectives.exchange import Exchange
from sparsecomm.collectives.executed import Executed
from sparsecomm.collectives.transport.base import Channel, MessageBuffer, Transport
from sparsecomm.errors import InputError
from sparsecomm.profile import Recorder, here
from tests.exchange_cases import Rows, blocks, same_bits, transposed
from tests.reference_plans import direct_plan, hub_plan, random_case
from tests.transport_wrappers import Wrapped

FIRST = 64  # the run of a direction from which on it is one call


class AsOne(Wrapped):
    """Wants one call whatever the MPI, and notes the channels that became one."""

    wins_as_one = True

    def __init__(self, inner: Transport) -> None:
        super().__init__(inner)
        self.joined: list[Channel] = []

    def open(self, sends: Sequence[MessageBuffer], recvs: Sequence[MessageBuffer]) -> Channel:
        return AsOneChannel(self.inner.open(sends, recvs), self.joined)


class AsOneChannel:
    def __init__(self, inner: Channel, joined: list[Channel]) -> None:
        self.inner, self.joined = inner, joined

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def as_one(self) -> Channel:
        self.joined.append(self.inner.as_one())
        return self.joined[-1]


def check_as_one(transport: Transport) -> None:
    """Ghosts, sums and counts stay right, whichever way each rank begins its runs and waits for them."""
    laps = FIRST // 2 + 4
    for seed in range(2):
        plan, draw = direct_plan(random_case(transport.num_ranks, seed)), np.random.default_rng([seed, transport.rank])
        wrapped, mine = AsOne(transport), plan.rank(transport.rank)
        xs, ys = blocks(plan.offsets, 3, np.float64, seed), blocks(plan.ghost_indptr, 3, np.float64, seed, whole=True)
        x, y = xs[transport.rank], ys[transport.rank]
        ghosts, sums = np.concatenate(xs)[mine.ghost_rows], transposed(plan, ys)[transport.rank]
        with Exchange(mine, wrapped, 3, np.float64, depth=2) as one:
            for lap in range(1, laps + 1):
                if lap == FIRST // 2 + 1 and transport.rank == 0:
                    with pytest.raises(InputError, match="own rows must be"):
                        one.forward(x[:, :1])
                here.recorder = Recorder(transport.rank, transport.num_ranks) if lap == laps - 1 else None
                found = _runs(one, [lap * x, x], [lap * y, y], draw if draw.random() < 0.5 else None)
                for times, rows in zip((lap, 1), found[:2], strict=True):
                    assert same_bits(rows, times * ghosts)
                for times, rows in zip((lap, 1), found[2:], strict=True):
                    np.testing.assert_array_equal(rows, times * sums)
                if lap == 1:
                    once = one.executed
            assert len(wrapped.joined) == (4 if plan.num_copies else 0)  # two buffer sets of either direction
            for field in fields(Executed):
                np.testing.assert_array_equal(getattr(one.executed, field.name), laps * getattr(once, field.name))


def _runs(exchange: Exchange, xs: list[Rows], ys: list[Rows], draw: np.random.Generator | None) -> list[Rows]:
    """Make two runs of either direction, all at once and waited for in random order where `draw` is given."""
    found: list[Rows] = [np.empty(0)] * 4
    if draw is None:
        for i, (x, y) in enumerate(zip(xs, ys, strict=True)):
            found[i], found[i + 2] = exchange.forward(x), exchange.reverse(y)
    else:
        pairs = zip(xs, ys, strict=True)
        begun = [pending for x, y in pairs for pending in (exchange.start(x), exchange.start_reverse(y))]
        for i in draw.permutation(4).tolist():
            found[i // 2 + 2 * (i % 2)] = begun[i].wait()
    return found


def check_only_small_runs_that_wait_for_nothing(transport: Transport) -> None:
    """Rows that are handed on, rounded ones that are looked at, and many of them go on as messages of their own."""
    case = random_case(transport.num_ranks)
    # A plan, the width, and whether only rows that changed are sent, and whether they are looked at.
    options = [
        (hub_plan(case), 1, False, False),
        (direct_plan(case), 1 << 12, False, False),
        (direct_plan(case), 1, True, False),
        (direct_plan(case), 1, False, True),
    ]
    for plan, width, delta, check_finite in options:
        handed_on = any((stage.send.slots >= part.num_own).any() for part in plan.shards() for stage in part.stages)
        if width == 1 and not (delta or check_finite or handed_on):
            continue
        wrapped = AsOne(transport)
        with Exchange(plan.rank(transport.rank), wrapped, width, delta=delta, check_finite=check_finite) as exchange:
            for _ in range(FIRST + 1):
                exchange.forward(np.zeros((exchange.plan.num_own, width), dtype=np.float32))
        assert not wrapped.joined


BODIES = (check_as_one, check_only_small_runs_that_wait_for_nothing)
