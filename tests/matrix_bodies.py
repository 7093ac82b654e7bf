"""What a distributed matrix must do: one body for threads and for MPI, collective over the ranks.

Values and blocks are small whole numbers wherever a result is compared, so that sums are exact in any order and the
oracle, scipy on the whole matrix in original numbering, is met to the last bit.
"""

from __future__ import annotations

import operator
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from scipy.sparse import csr_array

from sparsecomm.apps.matrix import DistMatrix
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.errors import InputError
from sparsecomm.topology import Topology
from tests.matrix_cases import (
    STRATEGIES,
    WAYS,
    Case,
    Dense,
    cases,
    dist,
    pairs,
    rank_product,
    sparse,
    whole_numbers,
    whole_product,
)
from tests.transport_wrappers import Late


def check_forward(transport: Transport) -> None:
    """A @ X for blocks, single columns and vectors."""
    for case, way in pairs(transport.num_ranks):
        with dist(case, way, transport) as a:
            assert a.shape == case.matrix.shape
            for shape in ((case.matrix.shape[1], 5), (case.matrix.shape[1], 1), (case.matrix.shape[1],)):
                whole = whole_numbers(shape, np.float64, seed=7)
                x = case.mine(whole, "cols", transport.rank)
                kept = x.copy()
                expected = case.mine(case.matrix @ whole, "rows", transport.rank)
                for _ in range(2):
                    np.testing.assert_array_equal(a @ x, expected, err_msg=f"{case.name}, {way}, {shape}")
                np.testing.assert_array_equal(x, kept)


def check_transposed(transport: Transport) -> None:
    """A.T @ Y is the same matrix with every plan the other way round."""
    for case, way in pairs(transport.num_ranks):
        with dist(case, way, transport) as a:
            assert a.T.shape == case.matrix.shape[::-1]
            assert a.T.T is a
            for shape in ((case.matrix.shape[0], 3), (case.matrix.shape[0], 1), (case.matrix.shape[0],)):
                whole = whole_numbers(shape, np.float64, seed=8)
                y = case.mine(whole, "rows", transport.rank)
                expected = case.mine(case.matrix.T @ whole, "cols", transport.rank)
                for _ in range(2):
                    np.testing.assert_array_equal(a.T @ y, expected, err_msg=f"{case.name}, {way}, {shape}")


def check_complex(transport: Transport) -> None:
    """A, A.T and A.H differ, and real blocks may meet complex matrices and the other way round."""
    for dtype in (np.complex64, np.complex128):
        for case in cases(transport.num_ranks, dtype)[:2]:
            for way in WAYS:
                with dist(case, way, transport) as a:
                    assert a.H.H is a
                    for kind in (dtype, np.float32):
                        x, y = (whole_numbers((n, 2), kind, seed=9) for n in case.matrix.shape[::-1])
                        mine_x, mine_y = case.mine(x, "cols", transport.rank), case.mine(y, "rows", transport.rank)
                        for found, whole, side in (
                            (a @ mine_x, case.matrix @ x, "rows"),
                            (a.T @ mine_y, case.matrix.T @ y, "cols"),
                            (a.H @ mine_y, case.matrix.conj().T @ y, "cols"),
                        ):
                            np.testing.assert_array_equal(found, case.mine(whole, side, transport.rank))
                            assert found.dtype == np.result_type(dtype, kind)
    real = cases(transport.num_ranks, np.float32)[0]
    with dist(real, "hierarchical", transport) as a:
        x = whole_numbers((40, 2), np.complex64, seed=9)
        expected = real.mine(real.matrix @ x, "rows", transport.rank)
        np.testing.assert_array_equal(a @ real.mine(x, "cols", transport.rank), expected)


def check_planned_in_the_job(transport: Transport) -> None:
    """`from_rows` needs nothing but each rank's own rows."""
    for case in cases(transport.num_ranks):
        for strategy in ("auto", *STRATEGIES):
            rows = case.rows(transport.rank)
            with DistMatrix.from_rows(rows, case.layouts, case.topology, transport, strategy=strategy, width=4) as a:
                assert strategy in ("auto", a.product.strategy)
                whole = whole_numbers((case.matrix.shape[1], 4), np.float64, seed=10)
                expected = case.mine(case.matrix @ whole, "rows", transport.rank)
                np.testing.assert_array_equal(a @ case.mine(whole, "cols", transport.rank), expected)


def check_moving_whole_blocks(transport: Transport) -> None:
    """`distribute` and `collect` know the original numbering; what went out comes back."""
    last = transport.num_ranks - 1
    for case in cases(transport.num_ranks):
        with dist(case, "direct", transport) as a:
            for root in {0, last}:
                for shape in ((3,), ()):
                    for which, size, side in ((a, 1, "cols"), (a.T, 0, "rows")):
                        whole = whole_numbers((case.matrix.shape[size], *shape), np.float32, seed=11)
                        given = whole if transport.rank == root else None
                        mine = which.distribute(given, root)
                        assert mine.dtype == np.float32
                        np.testing.assert_array_equal(mine, case.mine(whole, side, transport.rank))
                        back = which.T.collect(mine, root)
                        if transport.rank == root:
                            np.testing.assert_array_equal(back, whole)
                        else:
                            assert back is None


def check_new_values(transport: Transport) -> None:
    """Values change, the structure stays, also where others hold the nonzeros and the transposed blocks are made."""
    for case in cases(transport.num_ranks)[:3]:
        for way in WAYS:
            with dist(case, way, transport) as a:
                x, y = (whole_numbers((n, 2), np.float64, seed=12) for n in case.matrix.shape[::-1])
                mine_x, mine_y = case.mine(x, "cols", transport.rank), case.mine(y, "rows", transport.rank)
                for seed in (13, 14):
                    values = whole_numbers((case.matrix.nnz,), np.float64, seed)
                    other = csr_array((values, case.matrix.indices, case.matrix.indptr), shape=case.matrix.shape)
                    changed = Case(case.name, other, case.layouts, case.topology)
                    a.update_values(changed.rows(transport.rank).data)
                    expected = case.mine(other @ x, "rows", transport.rank)
                    np.testing.assert_array_equal(a @ mine_x, expected, err_msg=f"{case.name}, {way}")
                    expected = case.mine(other.T @ y, "cols", transport.rank)
                    np.testing.assert_array_equal(a.T @ mine_y, expected, err_msg=f"{case.name}, {way}")


def check_copies_are_counted(transport: Transport) -> None:
    """X in memory of `empty` moves without a copy; any other X costs one."""
    for case in cases(transport.num_ranks)[:2]:
        for way in WAYS:
            with dist(case, way, transport) as a:
                for which, side, plan in ((a, "cols", a.product.gather), (a.T, "rows", a.product.scatter)):
                    whole = whole_numbers((which.shape[1], 3), np.float64, seed=15)
                    x = which.empty(3)
                    assert x.shape == (plan.num_own, 3)
                    assert x.dtype == case.matrix.dtype
                    x[...] = case.mine(whole, side, transport.rank)
                    before = a.executed
                    which @ x
                    assert not (a.executed - before).bytes_copied.any()
                    which @ x.copy()
                    copied = (a.executed - before).bytes_copied
                    assert copied.tolist() == [x.nbytes if plan.stages else 0] + [0] * (copied.size - 1)


def check_counts_are_planned(transport: Transport) -> None:
    """What a product sends is what its volume says, level by level, in both directions."""
    for case in cases(transport.num_ranks)[:3]:
        for way in WAYS:
            volume = whole_product(case, way).volume()
            with dist(case, way, transport) as a:
                for which, side in ((a, "cols"), (a.T, "rows")):
                    before = a.executed
                    which @ case.mine(np.ones((which.shape[1], 3)), side, transport.rank)
                    done = a.executed - before
                    for sent, planned in (
                        (done.rows_sent, volume.rows),
                        (done.rows_received, volume.rows),
                        (done.messages_sent, volume.messages),
                        (done.messages_received, volume.messages),
                        (done.bytes_sent + done.bytes_loaded, volume.rows * 3 * 8),
                        (done.bytes_received + done.bytes_loaded, volume.rows * 3 * 8),
                    ):
                        total = transport.reduce(sent, "sum")
                        np.testing.assert_array_equal(total, planned, err_msg=f"{case.name}, {way}, {side}")


def check_in_place(transport: Transport) -> None:
    """X given in place may change as soon as the product is there, however late others are; nothing is copied."""
    rng = np.random.default_rng(transport.rank)
    case = cases(transport.num_ranks)[0]
    for way in WAYS:
        with dist(case, way, transport) as a:
            x = a.empty(2)
            for lap in range(6):
                whole = whole_numbers((a.shape[1], 2), np.float64, lap)
                x[...] = case.mine(whole, "cols", transport.rank)
                time.sleep(1e-3 * rng.random())
                y = a @ x
                x[...] = np.nan
                np.testing.assert_array_equal(y, case.mine(case.matrix @ whole, "rows", transport.rank))
            assert not a.executed.bytes_copied.any()
            inner = np.arange(case.topology.num_levels) < transport.num_shared
            assert not a.executed.bytes_sent[inner].any()


def check_via(transport: Transport) -> None:
    """The relayed products above do use the fourth block, and sums then wait for ghosts."""
    case = cases(transport.num_ranks)[0]
    with dist(case, "via-direct", transport) as a:
        own, in_, out, via = a._blocks.all
        total = transport.reduce(np.array([b.nnz for b in (own, in_, out, via)], dtype=np.int64), "sum")
        assert total.sum() == case.matrix.nnz
        assert a._blocks.any_via == (total[3] > 0) == (transport.num_ranks > 2)


def check_adjoint(transport: Transport) -> None:
    """<A x, y> == <x, A^T y>, and with A^H for complex numbers."""
    for dtype in (np.float64, np.complex128):
        for case in cases(transport.num_ranks, dtype)[:2]:
            for way in WAYS:
                rng = np.random.default_rng(16)
                x, y = (rng.standard_normal((n, 2)) + 1j * rng.standard_normal((n, 2)) for n in case.matrix.shape[::-1])
                x, y = (block.astype(dtype) if dtype == np.complex128 else block.real.copy() for block in (x, y))
                mine_x, mine_y = case.mine(x, "cols", transport.rank), case.mine(y, "rows", transport.rank)
                with dist(case, way, transport) as a:
                    dots = np.array([np.vdot(mine_y, a @ mine_x), np.vdot(a.H @ mine_y, mine_x)])
                left, right = transport.reduce(dots, "sum")
                assert abs(left - right) <= 1e-12 * (abs(case.matrix).sum() + 1) * 10


def check_repeats(transport: Transport) -> None:
    """Two runs give the same bits, whenever messages arrive."""
    case = cases(transport.num_ranks)[0]
    rng = np.random.default_rng(17)
    whole = rng.standard_normal((40, 3)).astype(np.float32)
    values = rng.standard_normal(case.matrix.nnz).astype(np.float32)
    matrix = csr_array((values, case.matrix.indices, case.matrix.indptr), shape=case.matrix.shape)
    case = Case(case.name, matrix, case.layouts, case.topology)
    x = case.mine(whole, "cols", transport.rank)
    for way in WAYS:
        seen = []
        for seed in range(3):
            with dist(case, way, Late(transport, seed) if seed else transport) as a:  # type: ignore[arg-type]
                seen += [(a @ x).tobytes() + (a.T @ x).tobytes() for _ in range(2)]
        assert len(set(seen)) == 1, way


def check_closed(transport: Transport) -> None:
    case = cases(transport.num_ranks)[0]
    for way in WAYS:
        a = dist(case, way, transport)
        x = np.ones((len(case.layouts.cols.own_rows(transport.rank)), 2))
        a @ x
        for _ in range(2):
            a.close()
        uses = [
            partial(operator.matmul, a, x),
            partial(operator.matmul, a.T, x),
            partial(a.update_values, np.ones(1)),
            *(partial(side.empty, 2) for side in (a, a.T)),
            *(partial(side.distribute, None) for side in (a, a.T)),
            *(partial(side.collect, x) for side in (a, a.T)),
        ]
        for use in uses:
            with pytest.raises(RuntimeError, match="closed"):
                use()


def check_wrong_blocks(transport: Transport) -> None:
    """What does not fit is refused, and the matrix can be used afterwards."""
    case = cases(transport.num_ranks)[0]
    num_own = len(case.layouts.cols.own_rows(transport.rank))
    with dist(case, "reduce", transport) as a:
        for wrong in (np.ones((num_own + 1, 2)), np.ones((num_own, 2, 2)), np.ones(())):
            for which in (a, a.T, a.H):
                with pytest.raises(InputError, match="owns"):
                    which @ wrong
        x = np.ones((num_own, 2))
        expected = case.mine(case.matrix @ np.ones((40, 2)), "rows", transport.rank)
        np.testing.assert_array_equal(a @ x, expected)


def check_refused_together(transport: Transport) -> None:
    """An argument that is wrong on one rank is refused on all of them, and the matrix can be used afterwards."""
    case = cases(transport.num_ranks)[0]
    rank, last = transport.rank, transport.num_ranks - 1
    rows, product = case.rows(rank), rank_product(case, "direct", rank)
    taller = csr_array((rows.shape[0] + 1, rows.shape[1]), dtype=rows.dtype)
    wrong_rows = taller if rank == last else rows
    with pytest.raises(InputError, match="must bring rows of shape"):
        DistMatrix(wrong_rows, product, case.topology, transport)
    with pytest.raises(InputError, match="shape"):
        DistMatrix.from_rows(wrong_rows, case.layouts, case.topology, transport)
    with pytest.raises(InputError, match="numbers of ranks differ"):
        DistMatrix(rows, product, Topology.from_nodes([0] * (last + 2)), transport)
    with pytest.raises(InputError, match="unknown strategy"):
        DistMatrix.from_rows(rows, case.layouts, case.topology, transport, strategy="best")
    with dist(case, "reduce", transport) as a:
        values = np.ones(rows.nnz + (rank == last))
        with pytest.raises(InputError, match="update_values"):
            a.update_values(values)
        for whole in (None, np.ones((39, 2)), np.ones((40, 1, 1))):
            with pytest.raises(InputError, match="X must have 40 rows"):
                a.distribute(whole if rank == last else None, last)
        y = np.ones((rows.shape[0], 2))
        wrong: list[Dense] = [np.ones((rows.shape[0] + 1, 2)), np.ones((rows.shape[0], 2, 2)), np.ones(())]
        for bad in wrong:
            with pytest.raises(InputError, match="Y"):
                a.collect(bad if rank == last else y)
        if last:
            for bad in (np.ones((rows.shape[0], 3)), y.astype(np.float32), y[:, 0]):
                with pytest.raises(InputError, match="Y"):
                    a.collect(bad if rank == last else y)
        expected = case.mine(case.matrix @ np.ones((40, 2)), "rows", rank)
        np.testing.assert_array_equal(a @ np.ones((rows.shape[0], 2)), expected)


def check_foreign_product(transport: Transport) -> None:
    """A product made for a matrix of another structure is refused on all ranks, not multiplied with."""
    if transport.num_ranks < 2:
        return
    case = cases(transport.num_ranks)[0]
    other = Case("other", sparse((40, 40), 0.15, np.float64, 99), case.layouts, case.topology)
    for way in WAYS:
        product = rank_product(other, way, transport.rank)
        with pytest.raises(InputError, match="another matrix"):
            DistMatrix(case.rows(transport.rank), product, case.topology, transport)


def check_wire(transport: Transport) -> None:
    """Rows rounded on their way: whole numbers survive float32, and half the bytes move."""
    case = cases(transport.num_ranks)[0]
    product = rank_product(case, "hierarchical", transport.rank)
    whole = whole_numbers((40, 2), np.float64, seed=18)
    rows = case.rows(transport.rank)
    with DistMatrix(rows, product, case.topology, transport, wire_dtype=np.float32) as a:
        expected = case.mine(case.matrix @ whole, "rows", transport.rank)
        np.testing.assert_array_equal(a @ case.mine(whole, "cols", transport.rank), expected)
        np.testing.assert_array_equal(a.executed.bytes_sent, a.executed.rows_sent * 2 * 4)


def check_repr(transport: Transport) -> None:
    case = cases(transport.num_ranks)[0]
    with dist(case, "direct", transport) as a:
        assert repr(a).startswith("DistMatrix(shape=(40, 40), dtype=float64, rank=")
        assert repr(a.T) == f"{a!r}.T"
        assert repr(a.H) == f"{a!r}.H"


BODIES: tuple[Callable[[Transport], None], ...] = tuple(
    body for name, body in list(globals().items()) if name.startswith("check_")
)
