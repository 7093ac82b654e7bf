"""The bodies with one thread per rank, and what only that transport can be asked."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from sparsecomm.collectives.exchange import Exchange
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.collectives.transport.local import LocalTransport, run_local
from sparsecomm.errors import ExchangeError, InputError
from sparsecomm.plan import Plan
from tests import exchange_bodies, run_bodies
from tests.exchange_cases import blocks
from tests.reference_plans import Case, direct_plan, hub_plan, random_case
from tests.transport_wrappers import Short, Slow

RANKS = (1, 2, 3, 4, 7)


@pytest.mark.parametrize("num_ranks", RANKS)
@pytest.mark.parametrize("body", exchange_bodies.BODIES, ids=lambda body: body.__name__)
def test_body(body: Callable[[Transport], None], num_ranks: int) -> None:
    run_local(num_ranks, body)


@pytest.mark.parametrize("body", exchange_bodies.BODIES, ids=lambda body: body.__name__)
def test_body_in_shared_memory(body: Callable[[Transport], None]) -> None:
    run_local(4, body, num_shared=1)


@pytest.mark.parametrize("num_ranks", RANKS)
def test_splitting(num_ranks: int) -> None:
    run_local(num_ranks, run_bodies.check_splitting, max_bytes=64)


def test_results_come_by_rank() -> None:
    assert run_local(64, lambda transport: transport.rank) == list(range(64))


@pytest.mark.parametrize("num_ranks", [0, 65])
def test_number_of_ranks_is_checked(num_ranks: int) -> None:
    with pytest.raises(InputError, match="1 to 64 ranks"):
        run_local(num_ranks, lambda transport: None)


def test_error_of_one_rank_ends_the_world() -> None:
    """The first cause is raised; the others, wherever they wait, end with an error that names it."""
    seen: dict[int, BaseException] = {}
    plan = hub_plan(random_case(4))

    def body(transport: Transport) -> None:
        if transport.rank == 2:
            time.sleep(0.2)
            raise KeyError("lost")
        try:
            with Exchange(plan.rank(transport.rank), transport, 2) as exchange:
                exchange.forward(np.zeros((exchange.plan.num_own, 2), dtype=np.float32))
        except ExchangeError as err:
            seen[transport.rank] = err
            raise

    with pytest.raises(KeyError, match="lost"):
        run_local(4, body, deadline_s=200)
    assert sorted(seen) == [0, 1, 3]
    assert all("rank 2 failed: KeyError('lost')" in str(err) for err in seen.values())


def test_error_while_others_wait_for_a_message() -> None:
    plan = direct_plan(random_case(4, seed=1))

    def body(transport: Transport) -> None:
        with Exchange(plan.rank(transport.rank), transport, 2) as exchange:
            if transport.rank == 0:
                raise ValueError("before its messages")
            exchange.forward(np.zeros((exchange.plan.num_own, 2), dtype=np.float32))
            transport.barrier()

    with pytest.raises(ValueError, match="before its messages"):
        run_local(4, body, deadline_s=200)


@pytest.mark.parametrize("how", ["barrier", "message"])
def test_deadline_ends_a_hang(how: str) -> None:
    plan = direct_plan(random_case(3, seed=1))
    receiver = next(p for p in range(3) if plan.rank(p).num_ghost)

    def body(transport: LocalTransport) -> None:
        exchange = Exchange(plan.rank(transport.rank), transport, 2)
        if transport.rank == receiver:
            world = transport._world
            while len(world.ended) < 2:
                time.sleep(0.001)
            world.deadline_s = 0.3
            transport.barrier() if how == "barrier" else exchange.forward(
                np.zeros((exchange.plan.num_own, 2), dtype=np.float32)
            )

    with pytest.raises(
        ExchangeError, match=rf"deadline of 0.3 s(.|\n)*rank {receiver} on host .* has waited"
    ) as caught:
        run_local(3, body, deadline_s=200)
    assert "came to the end of its program while others wait" in str(caught.value)


def test_no_thread_is_left() -> None:
    before = set(threading.enumerate())
    run_local(7, exchange_bodies.check_forward)
    assert set(threading.enumerate()) <= before


def test_dropped_pending_warns() -> None:
    plan = direct_plan(random_case(1))

    def body(transport: Transport) -> None:
        exchange = Exchange(plan.rank(0), transport, 2)
        exchange.start(np.zeros((exchange.plan.num_own, 2), dtype=np.float32))
        gc.collect()
        with pytest.raises(ExchangeError, match="nobody waited for"):
            exchange.close()

    with pytest.warns(RuntimeWarning, match="dropped without wait"):
        run_local(1, body)


def test_failure_inside_with_does_not_close() -> None:
    """Closing is collective, so a rank that fails alone must not wait in it."""
    plan = direct_plan(random_case(1))

    def body(transport: Transport) -> Exchange:
        exchange = Exchange(plan.rank(0), transport, 2)
        with pytest.raises(ZeroDivisionError), exchange:
            raise ZeroDivisionError
        return exchange

    (exchange,) = run_local(1, body)
    with pytest.raises(ExchangeError, match="failed earlier"):
        exchange.own_buffer()


def test_repr_names_the_parameters() -> None:
    plan = direct_plan(random_case(1))
    made = run_local(1, lambda t: repr(Exchange(plan.rank(0), t, 4, np.float64, wire_dtype=np.float32, depth=2)))
    assert made == ["Exchange(rank=0, stages=2, width=4, dtype=float64, wire=float32/float32, depth=2)"]


@pytest.mark.parametrize("num_shared", [0, 1])
@pytest.mark.parametrize("make", [direct_plan, hub_plan])
def test_runs_made_at_once_are_runs_like_others(make: Callable[[Case], Plan], num_shared: int) -> None:
    """Some ranks call `forward` and `reverse`, others start and wait; rows and counts are as if all did the latter."""
    plan = make(random_case(5, seed=4))
    xs = blocks(plan.offsets, 3, np.float32, 1)
    ys = blocks(plan.ghost_indptr, 3, np.float32, 2)

    def body(transport: Transport, mixed: bool) -> tuple[Any, ...]:
        with Exchange(plan.rank(transport.rank), transport, 3, depth=2) as exchange:
            found = []
            for turn in range(4):
                x, y = xs[transport.rank] + turn, ys[transport.rank] + turn
                if mixed and (turn + transport.rank) % 2:
                    found += [exchange.forward(x).copy(), exchange.reverse(y).copy()]
                else:
                    found += [exchange.start(x).wait().copy(), exchange.start_reverse(y).wait().copy()]
            return found, asdict(exchange.executed)

    def run(mixed: bool) -> list[tuple[Any, ...]]:
        return run_local(5, lambda transport: body(transport, mixed), num_shared=num_shared)

    alone, mixed = run(False), run(True)
    for (rows, counts), (other_rows, other_counts) in zip(alone, mixed, strict=True):
        assert all(map(np.array_equal, rows, other_rows))
        assert all(np.array_equal(counts[name], other_counts[name]) for name in counts)


def test_rows_that_a_slow_rank_still_reads_are_not_written() -> None:
    """Some ranks fall behind in the middle of runs that are one call, while the others hurry on."""
    plan = direct_plan(random_case(4, seed=4))
    xs = blocks(plan.offsets, 2, np.float32, 1)

    def body(transport: Transport) -> None:
        with Exchange(plan.rank(transport.rank), transport, 2) as exchange:
            ghosts = np.concatenate(xs)[exchange.plan.ghost_rows]
            for turn in range(60):
                found = exchange.forward(xs[transport.rank] + np.float32(turn))
                np.testing.assert_array_equal(found, ghosts + np.float32(turn))

    run_local(4, lambda transport: body(Slow(transport)), num_shared=1)


def test_a_run_made_at_once_that_brings_too_little_ends_the_exchange() -> None:
    """What is refused before it changes nothing."""
    plan = direct_plan(random_case(3, seed=7))
    xs = blocks(plan.offsets, 3, np.float32, 1)

    def body(transport: Transport) -> None:
        exchange = Exchange(plan.rank(transport.rank), Short(transport), 3)
        first = exchange.forward(xs[transport.rank])  # of several calls
        np.testing.assert_array_equal(first, np.concatenate(xs)[exchange.plan.ghost_rows])
        with pytest.raises(InputError, match=r"must be float32 .*, not float64"):
            exchange.forward(xs[transport.rank].astype(np.float64))
        with pytest.raises(ExchangeError, match="bytes came from rank"):
            exchange.forward(xs[transport.rank])
        with pytest.raises(ExchangeError, match="failed earlier"):
            exchange.forward(xs[transport.rank])

    run_local(3, body)
