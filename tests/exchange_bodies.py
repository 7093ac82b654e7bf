"""What every transport and every exchange must do: one body for threads and for MPI, collective over the ranks."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np

from sparsecomm.collectives.exchange import Exchange
from sparsecomm.collectives.execute import execute, execute_reverse
from sparsecomm.collectives.transport.base import Transport
from tests import refusal_bodies, run_bodies, transport_bodies
from tests.exchange_cases import DTYPES, blocks, plans, same_bits, transposed
from tests.reference_plans import direct_plan, random_case
from tests.transport_wrappers import Late

WIRES = ((np.float64, np.float32), (np.complex128, np.complex64), (np.float32, np.float16))
# By compiled loops, which take every process a while to load.
CODED = ((np.float32, "bfloat16"), (np.float64, "bf16"), (np.float32, "int8"), (np.float64, np.int8))
WIRE_BYTES = {"float32": 12, "complex64": 24, "float16": 6, "bfloat16": 6, "bf16": 6, "int8": 7}  # of 3 columns


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


BODIES: tuple[Callable[[Transport], None], ...] = tuple(
    body
    for module in (sys.modules[__name__], run_bodies, refusal_bodies, transport_bodies)
    for name, body in vars(module).items()
    if name.startswith("check_") and body.__module__ == module.__name__ and body is not run_bodies.check_splitting
)
