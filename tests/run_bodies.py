"""Runs in flight, their memory and their end: one body for every transport, collective over the ranks."""

from __future__ import annotations

import time

import numpy as np
import pytest

from sparsecomm.collectives.exchange import Exchange
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.errors import ExchangeError, InputError
from tests.exchange_cases import blocks, plans, same_bits, transposed
from tests.reference_plans import direct_plan, hub_plan, random_case
from tests.transport_bodies import check_route
from tests.transport_wrappers import Late, Lossy


def check_in_flight(transport: Transport) -> None:
    """Runs may be waited for in any order, another one on every rank."""
    rank = transport.rank
    plan = hub_plan(random_case(transport.num_ranks))
    xs = [blocks(plan.offsets, 2, np.float64, seed)[rank] for seed in range(3)]
    ys = [blocks(plan.ghost_indptr, 2, np.float64, seed, whole=True) for seed in range(3)]
    for lap in range(3):
        with Exchange(plan.rank(rank), Late(transport, lap), 2, np.float64, depth=3) as exchange:
            gathers = [exchange.start(x) for x in xs]
            scatters = [exchange.start_reverse(y[rank]) for y in ys]
            for i in np.random.default_rng([lap, rank]).permutation(6):
                (gathers + scatters)[i].wait()
            for seed, pending in enumerate(gathers):
                x = np.concatenate(blocks(plan.offsets, 2, np.float64, seed))
                assert same_bits(pending.wait(), x[exchange.plan.ghost_rows])
            for y, pending in zip(ys, scatters, strict=True):
                np.testing.assert_array_equal(pending.wait(), transposed(plan, y)[rank])


def check_two_exchanges(transport: Transport) -> None:
    """Messages of exchanges over one transport never meet."""
    rank = transport.rank
    made = [(plan, blocks(plan.offsets, 2, np.float32, seed)) for seed, plan in enumerate(plans(transport))]
    exchanges = [Exchange(plan.rank(rank), transport, 2) for plan, _ in made]
    pendings = [exchange.start(xs[rank]) for exchange, (_, xs) in zip(exchanges, made, strict=True)]
    for pending, exchange, (_, xs) in zip(pendings, exchanges, made, strict=True):
        assert same_bits(pending.wait(), np.concatenate(xs)[exchange.plan.ghost_rows])
        exchange.close()


def check_meanwhile(transport: Transport) -> None:
    """Whoever waits for one exchange hands on what others wait for in another; ranks wait in two orders."""
    rank = transport.rank
    plan = hub_plan(random_case(transport.num_ranks))
    xs = blocks(plan.offsets, 2, np.float32, seed=0)
    ys = blocks(plan.ghost_indptr, 2, np.float32, seed=1, whole=True)
    with (
        Exchange(plan.rank(rank), Late(transport, 0), 2) as one,
        Exchange(plan.rank(rank), Late(transport, 1), 2) as other,
    ):
        for lap in range(3):
            gather, scatter = one.start(xs[rank]), other.start_reverse(ys[rank])
            for now, later in ((gather, scatter), (scatter, gather))[:: 1 if (rank + lap) % 2 else -1]:
                now.wait(meanwhile=[later])
            assert same_bits(gather.wait(), np.concatenate(xs)[one.plan.ghost_rows])
            np.testing.assert_array_equal(scatter.wait(), transposed(plan, ys)[rank])


def check_depth(transport: Transport) -> None:
    plan = direct_plan(random_case(transport.num_ranks))
    xs = blocks(plan.offsets, 2, np.float32, seed=0)
    x = xs[transport.rank]
    with Exchange(plan.rank(transport.rank), transport, 2) as exchange:
        pending = exchange.start(x)
        for refused in (lambda: exchange.start(x), exchange.own_buffer):
            with pytest.raises(InputError, match="depth=1"):
                refused()
        assert same_bits(pending.wait(), np.concatenate(xs)[exchange.plan.ghost_rows])
        exchange.forward(x)


def check_progress(transport: Transport) -> None:
    plan = hub_plan(random_case(transport.num_ranks))
    xs = blocks(plan.offsets, 2, np.float32, seed=0)
    with Exchange(plan.rank(transport.rank), Late(transport, 0), 2) as exchange:
        pending = exchange.start(xs[transport.rank])
        while not pending.progress():
            pass
        sent = exchange.executed
        assert same_bits(pending.wait(), np.concatenate(xs)[exchange.plan.ghost_rows])
        assert pending.progress()
        assert not (exchange.executed - sent).rows_sent.any()
        transport.barrier()


def check_zero_copy(transport: Transport) -> None:
    plan = hub_plan(random_case(transport.num_ranks))
    xs = blocks(plan.offsets, 2, np.float32, seed=0)
    ys = blocks(plan.ghost_indptr, 2, np.float32, seed=1, whole=True)
    x, y, expected = xs[transport.rank], ys[transport.rank], transposed(plan, ys)[transport.rank]
    with Exchange(plan.rank(transport.rank), transport, 2, depth=2) as exchange:
        for _ in range(3):
            exchange.own_buffer()[:] = x
            exchange.partials_buffer()[:] = y
            ghosts, sums = exchange.start(exchange.own_buffer()), exchange.start_reverse(exchange.partials_buffer())
            assert same_bits(ghosts.wait(), np.concatenate(xs)[exchange.plan.ghost_rows])
            np.testing.assert_array_equal(sums.wait(), expected)
        assert not exchange.executed.bytes_copied.any()
        exchange.forward(x)
        assert exchange.executed.bytes_copied.tolist() == [x.nbytes] + [0] * (exchange.num_levels - 1)


def check_in_place(transport: Transport) -> None:
    """Rows read where they lie are those of this run, however late anybody comes; then they may change."""
    rank = transport.rank
    for seed, plan in enumerate(plans(transport)):
        rng = np.random.default_rng([seed, rank])
        with Exchange(plan.rank(rank), Late(transport, seed), 2, num_levels=2) as exchange:
            for lap in range(12):
                x = exchange.own_buffer()
                whole = np.concatenate(blocks(plan.offsets, 2, np.float32, lap))
                x[:] = whole[exchange.plan.start : exchange.plan.start + len(x)]
                time.sleep(1e-3 * rng.random())
                pending = exchange.start(x, in_place=True)
                rows, places = pending.wait(), exchange.ghost_places()
                time.sleep(1e-3 * rng.random())
                found = rows if places is None else rows[places]
                assert same_bits(found, whole[exchange.plan.ghost_rows])
                if lap % 3:
                    pending.release()
                if lap % 2:
                    pending.settle()
                    x[:] = np.nan
            assert not exchange.executed.bytes_copied.any()


def check_executed(transport: Transport) -> None:
    for plan in plans(transport):
        mine = plan.rank(transport.rank)
        x, y = np.ones((mine.num_own, 3)), np.ones((mine.num_ghost, 3))
        with Exchange(mine, transport, 3, np.float64, num_levels=2) as exchange:
            for _ in range(2):
                exchange.forward(x)
            forward = exchange.executed
            exchange.reverse(y)
            reverse = exchange.executed - forward
        (rows_out, rows_in), (messages_out, messages_in) = mine.rows(2), mine.messages(2)
        for done, runs, rows, messages in (
            (forward, 2, (rows_out, rows_in), (messages_out, messages_in)),
            (reverse, 1, (rows_in, rows_out), (messages_in, messages_out)),
        ):
            np.testing.assert_array_equal(done.rows_sent, runs * rows[0])
            np.testing.assert_array_equal(done.rows_received, runs * rows[1])
            sent = np.arange(2) >= exchange.num_shared
            np.testing.assert_array_equal(done.bytes_sent, runs * rows[0] * 24 * sent)
            np.testing.assert_array_equal(done.bytes_received, runs * rows[1] * 24 * sent)
            np.testing.assert_array_equal(done.bytes_loaded, runs * rows[1] * 24 * ~sent)
            np.testing.assert_array_equal(done.messages_sent, runs * messages[0])
            np.testing.assert_array_equal(done.messages_received, runs * messages[1])
            np.testing.assert_array_equal(done.pieces_sent, done.messages_sent)


def check_splitting(transport: Transport) -> None:
    """To be given a transport that splits messages at 64 bytes."""
    plan = direct_plan(random_case(transport.num_ranks, seed=1))
    mine = plan.rank(transport.rank)
    xs = blocks(plan.offsets, 11, np.float64, seed=0)
    ys = blocks(plan.ghost_indptr, 11, np.float64, seed=1, whole=True)
    with Exchange(mine, transport, 11, np.float64, num_levels=2) as exchange:
        assert same_bits(exchange.forward(xs[transport.rank]), np.concatenate(xs)[mine.ghost_rows])
        expected = [-(-rows * 88 // 64) for stage in mine.stages for rows in np.diff(stage.send.indptr)]
        assert exchange.executed.pieces_sent.sum() == sum(expected)
        assert exchange.executed.messages_sent.sum() == len(expected)
        np.testing.assert_array_equal(exchange.reverse(ys[transport.rank]), transposed(plan, ys)[transport.rank])
    check_route(transport)
    check_dropped(transport)


def check_dropped(transport: Transport) -> None:
    """A message that lost its payload, or one row of it, is found, and its exchange is of no use any more."""
    for how in ("empty", "short"):
        _check_dropped(transport, how)


def _check_dropped(transport: Transport, how: str) -> None:
    plan = direct_plan(random_case(transport.num_ranks, seed=1))
    sent = [stage for stage in plan.stages if stage.level >= transport.num_shared]
    edges = [(int(s), int(d)) for stage in sent for s, d in zip(stage.src, stage.dst, strict=True)]
    src, dst = edges[0] if edges else (-1, -1)
    x = blocks(plan.offsets, 2, np.float32, seed=0)[transport.rank]
    exchange = Exchange(plan.rank(transport.rank), Lossy(transport, src, dst, how), 2)
    if transport.rank == dst:
        with pytest.raises(
            ExchangeError, match=rf"rank {dst}, stage \d: (\d+) bytes came from rank {src}, .* says \d+"
        ):
            exchange.forward(x)
        for use in (lambda: exchange.start(x), exchange.own_buffer, exchange.verify):
            with pytest.raises(ExchangeError, match="failed earlier") as caught:
                use()
            assert "bytes came" in str(caught.value.__cause__)
    else:
        exchange.forward(x)
    transport.barrier()
    exchange.close()


def check_closed(transport: Transport) -> None:
    plan = direct_plan(random_case(transport.num_ranks))
    x = blocks(plan.offsets, 2, np.float32, seed=0)[transport.rank]
    copy = transport.duplicate()
    exchange = Exchange(plan.rank(transport.rank), copy, 2)
    pending = exchange.start(x)
    pending.wait()
    for _ in range(2):
        exchange.close()
        copy.close()
    for use in (lambda: exchange.start(x), exchange.own_buffer, exchange.verify, exchange.partials_buffer):
        with pytest.raises(ExchangeError, match="closed"):
            use()
    with pytest.raises(ExchangeError, match="closed"):
        copy.barrier()
    with pytest.raises(ExchangeError, match="closed"):
        copy.open([], [])


def check_forgotten(transport: Transport) -> None:
    plan = direct_plan(random_case(transport.num_ranks))
    x = blocks(plan.offsets, 2, np.float32, seed=0)[transport.rank]
    exchange = Exchange(plan.rank(transport.rank), transport, 2)
    pending = exchange.start(x)
    while not pending.progress():
        pass
    transport.barrier()
    with pytest.raises(ExchangeError, match="1 runs that nobody waited for"):
        exchange.close()
