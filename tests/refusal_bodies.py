"""What an exchange refuses, and what its checks find: one body for every transport, collective over the ranks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from sparsecomm.collectives.exchange import Exchange
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.errors import ExchangeError, InputError, PlanError
from sparsecomm.plan import Messages, RankPlan, RankStage
from tests.exchange_cases import plans
from tests.reference_plans import direct_plan, random_case


def check_arguments(transport: Transport) -> None:
    """What one rank gets wrong is refused on all ranks."""
    plan = direct_plan(random_case(transport.num_ranks))
    mine, last = plan.rank(transport.rank), transport.rank == transport.num_ranks - 1
    for kind, wrong in (
        (InputError, {"width": 0}),
        (InputError, {"width": 2.5}),
        (InputError, {"depth": 0}),
        (InputError, {"dtype": np.bool_}),
        (InputError, {"dtype": np.float64, "wire_dtype": np.complex64}),
        (InputError, {"dtype": np.int64, "wire_dtype": np.int32}),
        (InputError, {"wire_dtype": [None] * 7}),
        (PlanError, {"plan": replace(mine, rank=mine.rank + 1)}),
    ):
        with pytest.raises(kind):
            Exchange(**{"plan": mine, "transport": transport, "width": 2, **(wrong if last else {})})
    with Exchange(mine, transport, 2) as exchange:
        for block in (np.zeros((mine.num_own + 1, 2), np.float32), np.zeros((mine.num_own, 2), np.float64)):
            with pytest.raises(InputError, match="own rows must be float32"):
                exchange.start(block)
        pending = exchange.start(np.zeros((mine.num_own, 2), np.float32))
        with pytest.raises(InputError, match="ghost rows must be float32"):
            pending.wait(np.zeros((mine.num_ghost, 3), np.float32))
        pending.wait()


def check_wrong_peers(transport: Transport) -> None:
    """Sends that are not the transpose of receives are refused on all ranks."""
    plan = direct_plan(random_case(transport.num_ranks, seed=1))
    victim = next((p for p in range(transport.num_ranks) if plan.rank(p).stages[0].recv.num_rows), None)
    if victim is None:
        return
    mine = plan.rank(transport.rank)
    if transport.rank == victim:
        mine = replace(mine, stages=(_without_first_row(mine.stages[0]), *mine.stages[1:]))
    with pytest.raises(PlanError, match=r"stage 0: rank \d sends rank \d .* rows.*but the plan expects"):
        Exchange(mine, transport, 2)
    width = 3 if transport.rank == victim else 2
    with pytest.raises(PlanError, match="made with width"):
        Exchange(plan.rank(transport.rank), transport, width)


def check_finite(transport: Transport) -> None:
    """A row that is not finite is found before it leaves, with its global number, in both directions."""
    plan = direct_plan(random_case(transport.num_ranks, seed=1))
    mine = plan.rank(transport.rank)
    with Exchange(mine, transport, 3, check_finite=True) as exchange:
        exchange.forward(np.ones((mine.num_own, 3), np.float32))
    leaving = mine.slot_rows()[mine.stages[0].send.slots]
    for start, block, rows in (
        (Exchange.start, np.ones((mine.num_own, 3), np.float32), leaving),
        (Exchange.start_reverse, np.ones((mine.num_ghost, 3), np.float32), mine.ghost_rows),
    ):
        exchange = Exchange(mine, transport, 3, check_finite=True)
        block[:, 1] = np.nan
        if rows.size:
            with pytest.raises(ExchangeError, match=rf"rank {transport.rank}, stage \d: row \d+ .* with nan") as caught:
                start(exchange, block)
            assert int(str(caught.value).split("row ")[1].split()[0]) in rows
    transport.barrier()


def check_same_everywhere(transport: Transport) -> None:
    """What one rank was given otherwise is named on all ranks."""
    plan = direct_plan(random_case(transport.num_ranks, seed=1)).rank(transport.rank)
    if transport.num_ranks == 1:
        return
    for name, usual, other in (("width", 2, 3), ("dtype", np.float32, np.float64), ("depth", 1, 2)):
        given = {"width": 2, name: other if transport.rank == transport.num_ranks - 1 else usual}
        with pytest.raises(PlanError, match=f"made with {name} "):
            Exchange(plan, transport, **given)


def check_calls(transport: Transport) -> None:
    """With SPARSECOMM_DEBUG a rank that makes another call than rank 0 is found before anything is sent."""
    if transport.num_ranks == 1:
        return
    os.environ["SPARSECOMM_DEBUG"] = "1"
    plan = direct_plan(random_case(transport.num_ranks, seed=1)).rank(transport.rank)
    exchange = Exchange(plan, transport, 2, depth=2)
    exchange.forward(np.zeros((plan.num_own, 2), np.float32))
    first = transport.rank == 0
    start, num_rows = (exchange.start, plan.num_own) if first else (exchange.start_reverse, plan.num_ghost)
    with pytest.raises(PlanError, match="call 2 is the start of a run in reverse, but on rank 0 call 2 is the start"):
        start(np.zeros((num_rows, 2), np.float32))
    transport.barrier()
    os.environ.pop("SPARSECOMM_DEBUG", None)


def check_verify(transport: Transport) -> None:
    for plan in plans(transport):
        with Exchange(plan.rank(transport.rank), transport, 5, depth=2) as exchange:
            exchange.verify()
            assert not exchange.executed.rows_sent.any()


def check_rows_of_messages(transport: Transport) -> None:
    """As many rows as expected, but others: all ranks are told before anything is sent."""
    plan = direct_plan(random_case(transport.num_ranks, seed=1))
    parts = [plan.rank(p) for p in range(transport.num_ranks)]
    victim = next((p for p, part in enumerate(parts) if part.stages[0].recv.num_rows > 1), None)
    if victim is None:
        return
    mine = _with_swapped_slots(parts[victim]) if transport.rank == victim else parts[transport.rank]
    with pytest.raises(PlanError, match="hash of the rows"):
        Exchange(mine, transport, 2)


def check_verify_finds(transport: Transport) -> None:
    """A plan that brings no rows at all fits on all ranks, but proves nothing; all ranks are told."""
    plan = direct_plan(random_case(transport.num_ranks, seed=1))
    if plan.ghost_rows.size == 0:
        return
    mine = replace(plan.rank(transport.rank), stages=())
    with (
        pytest.raises(PlanError, match=r"end with the wrong row|brings rank \d its"),
        _not_closed(mine, transport) as exchange,
    ):
        exchange.verify()
    exchange.close()


@contextmanager
def _not_closed(plan: RankPlan, transport: Transport) -> Iterator[Exchange]:
    yield Exchange(plan, transport, 2)


def _without_first_row(stage: RankStage) -> RankStage:
    peers = np.repeat(stage.recv.peers, np.diff(stage.recv.indptr))
    return replace(stage, recv=Messages.of(peers[1:], stage.recv.slots[1:]))


def _with_swapped_slots(plan: RankPlan) -> RankPlan:
    stage = plan.stages[0]
    slots = stage.recv.slots.copy()
    slots[:2] = slots[1::-1]
    return replace(plan, stages=(replace(stage, recv=replace(stage.recv, slots=slots)), *plan.stages[1:]))
