"""What every transport and every exchange must do: one body for threads and for MPI, collective over the ranks."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sparsecomm.collectives.exchange import Exchange
from sparsecomm.collectives.execute import execute, execute_reverse
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.errors import ExchangeError, InputError, PlanError
from sparsecomm.plan import Messages, Plan, RankPlan, RankStage
from sparsecomm.table import Offline, Table
from tests.reference_plans import direct_plan, hub_plan, random_case
from tests.transport_wrappers import Late, Lossy

Rows = np.ndarray[Any, Any]
DTYPES = (np.float32, np.float64, np.complex64, np.complex128, np.int64)
MAKERS = (direct_plan, hub_plan)
WIRES = ((np.float64, np.float32), (np.complex128, np.complex64), (np.float32, np.float16))
# By compiled loops, which take every process a while to load.
CODED = ((np.float32, "bfloat16"), (np.float64, "bf16"), (np.float32, "int8"), (np.float64, np.int8))
WIRE_BYTES = {"float32": 12, "complex64": 24, "float16": 6, "bfloat16": 6, "bf16": 6, "int8": 7}  # of 3 columns


def plans(transport: Transport, seeds: range = range(2)) -> Iterator[Plan]:
    for seed in seeds:
        case = random_case(transport.num_ranks, seed)
        yield from (make(case) for make in MAKERS)


def blocks(indptr: Rows, width: int, dtype: Any, seed: int, *, whole: bool = False) -> list[Rows]:
    """Draw a block of rows for every rank; `whole` numbers are summed exactly in any order."""
    rng = np.random.default_rng(seed)
    shape = (int(indptr[-1]), width)
    if whole or np.issubdtype(dtype, np.integer):
        drawn = rng.integers(-50, 50, shape) + (1j * rng.integers(-50, 50, shape) if np.iscomplexobj(dtype()) else 0)
    else:
        drawn = rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if np.iscomplexobj(dtype()) else 0)
    return np.split(drawn.astype(dtype), indptr[1:-1])


def same_bits(found: Rows, expected: Rows) -> bool:
    return found.dtype == expected.dtype and found.shape == expected.shape and found.tobytes() == expected.tobytes()


def transposed(plan: Plan, partials: list[Rows]) -> list[Rows]:
    """Sum partial rows by their global number, knowing nothing of stages."""
    total = np.zeros((int(plan.offsets[-1]), partials[0].shape[1]), dtype=partials[0].dtype)
    np.add.at(total, plan.ghost_rows, np.concatenate(partials))
    return np.split(total, plan.offsets[1:-1])


def check_forward(transport: Transport) -> None:
    for plan in plans(transport):
        for dtype, width in [*((dtype, 3) for dtype in DTYPES), (np.float32, 1), (np.float64, 64)]:
            xs = blocks(plan.offsets, width, dtype, seed=1)
            mine = plan.rank(transport.rank)
            expected = np.concatenate(xs)[mine.ghost_rows]
            with Exchange(mine, transport, width, dtype) as exchange:
                for _ in range(2):
                    assert same_bits(exchange.forward(xs[transport.rank]), expected)
                out = np.empty_like(expected)
                assert exchange.start(xs[transport.rank]).wait(out) is out
                assert same_bits(out, expected)
            assert same_bits(execute(plan, xs)[transport.rank], expected)


def check_reverse(transport: Transport) -> None:
    rank = transport.rank
    for plan in plans(transport):
        for dtype, width in [*((dtype, 3) for dtype in DTYPES), (np.float64, 1), (np.float32, 64)]:
            partials = blocks(plan.ghost_indptr, width, dtype, seed=2, whole=True)
            owns = blocks(plan.offsets, width, dtype, seed=3, whole=True)
            expected = transposed(plan, partials)[rank]
            kept = partials[rank].copy()
            with Exchange(plan.rank(rank), transport, width, dtype) as exchange:
                for _ in range(2):
                    np.testing.assert_array_equal(exchange.reverse(partials[rank]), expected)
                out = owns[rank].copy()
                assert exchange.reverse(partials[rank], out) is out
            np.testing.assert_array_equal(out, owns[rank] + expected)
            np.testing.assert_array_equal(partials[rank], kept)


def check_reverse_repeats(transport: Transport) -> None:
    """Sums of floats are the reference's bit for bit, in whatever order messages land."""
    rank = transport.rank
    for seed, plan in enumerate(plans(transport, range(3))):
        for dtype in (np.float32, np.complex128):
            partials = blocks(plan.ghost_indptr, 3, dtype, seed=4)
            owns = blocks(plan.offsets, 3, dtype, seed=5)
            sums = execute_reverse(plan, partials)[rank]
            added = execute_reverse(plan, partials, owns)[rank]
            with Exchange(plan.rank(rank), Late(transport, seed), 3, dtype) as exchange:
                for _ in range(3):
                    assert same_bits(exchange.reverse(partials[rank]), sums)
                    assert same_bits(exchange.reverse(partials[rank], owns[rank].copy()), added)


def check_negative_zero(transport: Transport) -> None:
    """A sum of negative zeros is a negative zero; a row that nobody sends to is a positive one."""
    for plan in plans(transport):
        partials = np.split(np.full((plan.ghost_rows.size, 2), -0.0), plan.ghost_indptr[1:-1])
        with Exchange(plan.rank(transport.rank), transport, 2, np.float64) as exchange:
            found = exchange.reverse(partials[transport.rank])
        assert same_bits(found, execute_reverse(plan, partials)[transport.rank])
        own = range(plan.offsets[transport.rank], plan.offsets[transport.rank + 1])
        np.testing.assert_array_equal(np.signbit(found[:, 0]), np.isin(own, plan.ghost_rows))


def check_adjoint(transport: Transport) -> None:
    """<G x, y> == <x, Gᵀ y>."""
    rank = transport.rank
    for plan in plans(transport):
        for dtype in (np.int64, np.float64):
            x = blocks(plan.offsets, 3, dtype, seed=6)[rank]
            y = blocks(plan.ghost_indptr, 3, dtype, seed=7)[rank]
            with Exchange(plan.rank(rank), transport, 3, dtype) as exchange:
                both = np.array([(exchange.forward(x) * y).sum(), (x * exchange.reverse(y)).sum()])
            left, right = transport.reduce(both, "sum")
            assert left == right if dtype is np.int64 else abs(left - right) < 1e-9


def check_wire(transport: Transport) -> None:
    rank = transport.rank
    for plan in plans(transport):
        for dtype, wire in WIRES + (CODED if transport.num_ranks in (3, 4) else ()):
            xs = blocks(plan.offsets, 3, dtype, seed=8)
            partials = blocks(plan.ghost_indptr, 3, dtype, seed=9)
            with Exchange(plan.rank(rank), transport, 3, dtype, wire_dtype=wire) as exchange:
                ghosts = exchange.forward(xs[rank])
                assert ghosts.dtype == dtype
                assert same_bits(ghosts, execute(plan, xs, wire_dtype=wire)[rank])
                sums = exchange.reverse(partials[rank])
                assert same_bits(sums, execute_reverse(plan, partials, wire_dtype=wire)[rank])
                rows, sizes = exchange.executed.rows_sent.sum(), exchange.executed.bytes_sent.sum()
                assert sizes == rows * WIRE_BYTES[getattr(wire, "__name__", wire)]


def check_wire_by_level(transport: Transport) -> None:
    case = random_case(transport.num_ranks)
    plan = direct_plan(case)
    mine = plan.rank(transport.rank)
    x = np.concatenate(blocks(plan.offsets, 2, np.float64, seed=10))
    far = np.array([case.node(case.owner(row)) != case.node(transport.rank) for row in mine.ghost_rows], dtype=bool)
    expected = x[mine.ghost_rows]
    expected[far] = expected[far].astype(np.float32)
    with Exchange(mine, transport, 2, np.float64, wire_dtype=[None, np.float32]) as exchange:
        assert same_bits(exchange.forward(x[mine.start : mine.start + mine.num_own]), expected)


def check_wires_by_level(transport: Transport) -> None:
    """Every level has a format of its own, in both directions."""
    rank = transport.rank
    for plan in plans(transport):
        if plan.topology.num_levels != 2 or transport.num_ranks not in (3, 4):
            continue
        wires = ["bf16", "int8"]
        xs = blocks(plan.offsets, 5, np.float32, seed=8)
        partials = blocks(plan.ghost_indptr, 5, np.float32, seed=9)
        with Exchange(plan.rank(rank), transport, 5, wire_dtype=wires, check_finite=True) as exchange:
            assert same_bits(exchange.forward(xs[rank]), execute(plan, xs, wire_dtype=wires)[rank])
            there = exchange.executed
            assert there.bytes_sent.tolist() == (there.rows_sent * [10, 9]).tolist()
            assert same_bits(exchange.reverse(partials[rank]), execute_reverse(plan, partials, wire_dtype=wires)[rank])


def check_delta(transport: Transport) -> None:
    """Rows that did not change stay at home, results are those of all rows; a lost message is found."""
    rank = transport.rank
    rng = np.random.default_rng(0)  # the same on all ranks
    for plan in plans(transport):
        mine = plan.rank(rank)
        xs = blocks(plan.offsets, 3, np.float32, seed=1)
        ys = blocks(plan.ghost_indptr, 3, np.float32, seed=2)
        planned = mine.rows(2)
        for wire in (None, np.float16):
            with Exchange(mine, Late(transport, 0), 3, wire_dtype=wire, num_levels=2, delta=True) as exchange:
                for lap in range(4):
                    before = exchange.executed
                    assert same_bits(exchange.forward(xs[rank]), execute(plan, xs, wire_dtype=wire)[rank])
                    done = exchange.executed - before
                    assert same_bits(exchange.reverse(ys[rank]), execute_reverse(plan, ys, wire_dtype=wire)[rank])
                    if lap in (0, 2):
                        sent = np.arange(2) >= exchange.num_shared
                        np.testing.assert_array_equal(done.rows_sent[sent], planned[0][sent] if lap == 0 else 0)
                    assert (done.rows_received <= planned[1]).all()
                    if lap != 1:
                        for block in (*xs, *ys):
                            block[rng.random(len(block)) < 0.5] += 1


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


def check_route(transport: Transport) -> None:
    """A table routed in a job is the table routed offline, many times in a row."""
    num_ranks, rank = transport.num_ranks, transport.rank
    offline = Offline(num_ranks)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        counts = rng.integers(0, 30, num_ranks) * (rng.random(num_ranks) < (0.7 if seed else 0.0))
        whole = _random_table(rng, counts)
        to_rank = rng.integers(0, num_ranks, len(whole)).astype(np.int32)
        to_rank[rng.random(len(whole)) < 0.5] = 0
        mine = whole.rank == rank
        expected = offline.route(whole, to_rank)
        expected = expected.take(expected.rank == rank)
        found = transport.route(whole.take(mine), to_rank[mine])
        assert list(found.columns) == list(whole.columns)
        assert found.rank.dtype == np.int32
        assert (found.rank == rank).all()
        assert all(same_bits(found[name], expected[name]) for name in whole.columns)


def _random_table(rng: np.random.Generator, counts: Rows) -> Table:
    n = int(counts.sum())
    columns = {
        "row": rng.integers(0, 1 << 60, n),
        "flag": rng.random(n) < 0.5,
        "small": rng.integers(0, 100, n).astype(np.int8),
        "block": rng.standard_normal((n, 3)).astype(np.float32),
        "pair": rng.standard_normal((n, 2)) + 1j,
    }
    return Table(np.repeat(np.arange(counts.size, dtype=np.int32), counts), columns)


def check_route_refuses(transport: Transport) -> None:
    table = Table(np.zeros(1, dtype=np.int32), {"a": np.zeros(1)})
    with pytest.raises(InputError, match="ranks are 0"):
        transport.route(table, np.array([transport.num_ranks], dtype=np.int32))
    with pytest.raises(InputError, match="one rank for each of 1 rows"):
        transport.route(table, np.zeros(2, dtype=np.int32))
    other = {"a": np.zeros(1, dtype=np.float32 if transport.rank == 0 else np.float64)}
    peer = np.array([(transport.rank + 1) % transport.num_ranks], dtype=np.int32)
    if transport.num_ranks > 1 and transport.rank in (0, 1):
        with pytest.raises(ExchangeError, match="other columns or dtypes"):
            transport.route(Table(table.rank, other), peer)
    else:
        transport.route(Table(table.rank, other), peer)


def check_collectives(transport: Transport) -> None:
    rank, num_ranks = transport.rank, transport.num_ranks
    assert transport.held == range(rank, rank + 1)
    values, all_values = np.array([[rank, 1], [2, -rank]]), [np.array([[p, 1], [2, -p]]) for p in range(num_ranks)]
    for dtype in (np.int64, np.float32, np.complex128):
        np.testing.assert_array_equal(transport.reduce(values.astype(dtype), "sum"), sum(all_values))
    np.testing.assert_array_equal(transport.reduce(values, "max"), np.max(all_values, axis=0))
    assert transport.reduce(np.zeros((0, 2)), "sum").shape == (0, 2)
    assert transport.reduce(np.array([rank == 0]), "max").tolist() == [True]
    assert transport.collect(np.array([rank * 3])).tolist() == [3 * p for p in range(num_ranks)]
    assert transport.bcast({"from": rank}, root=num_ranks - 1) == {"from": num_ranks - 1}
    transport.barrier()


def check_agree(transport: Transport) -> None:
    rank, last = transport.rank, transport.num_ranks - 1
    transport.agree(None)
    own = InputError("no such file")
    with pytest.raises(InputError, match="no such file" if rank == last else f"^rank {last}: no such file$") as caught:
        transport.agree(own if rank == last else None)
    assert (caught.value is own) == (rank == last)
    assert caught.value.agreed
    with pytest.raises(ZeroDivisionError if rank == 0 else ExchangeError, match="why"):
        transport.agree(ZeroDivisionError("why") if rank == 0 else None)
    with pytest.raises(PlanError, match=f"of {rank}"):
        transport.agree(PlanError(f"of {rank}"))
    transport.agree(None)


def check_duplicate(transport: Transport) -> None:
    copy = transport.duplicate()
    again = copy.duplicate()
    assert (copy.rank, copy.num_ranks) == (transport.rank, transport.num_ranks)
    assert again.collect(np.array([1])).sum() == copy.collect(np.array([1])).sum() == transport.num_ranks
    again.close()
    copy.close()


BODIES: tuple[Callable[[Transport], None], ...] = tuple(
    body for name, body in list(globals().items()) if name.startswith("check_") and body is not check_splitting
)
