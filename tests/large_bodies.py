"""What passes 2**31: rows, bytes to a row, bytes of a message. Memory that is not touched costs nothing."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from sparsecomm.apps.matrix import DistMatrix
from sparsecomm.collectives.copies import Copies, build_plan, build_rank_plan
from sparsecomm.collectives.direct import direct_copies
from sparsecomm.collectives.exchange import Exchange
from sparsecomm.collectives.hierarchical import hierarchical_copies
from sparsecomm.collectives.strategy import get_strategy, strategy_names
from sparsecomm.collectives.transport.base import MAX_PIECE_BYTES, Transport
from sparsecomm.layout import Layout, Layouts
from sparsecomm.pattern import Pattern, Remote
from sparsecomm.plan import RankPlan
from sparsecomm.table import Offline, Router
from sparsecomm.topology import Topology
from tests.planning_bodies import topologies

NUM_ROWS = 2**31 + 1000
MARKS = (0, 1, 2**10 - 5, 2**10 - 4, 2**10 - 3, 2**11 - 1, 2**11)


def asked(layout: Layout) -> np.ndarray:
    """Return rows of every rank: its first, one in the middle and its last."""
    first, last = layout.offsets[:-1], layout.offsets[1:] - 1
    return np.stack([first, (first + last) // 2, last], axis=1).ravel()


def copies_of(name: str, layout: Layout, topology: Topology, router: Router) -> Copies:
    """Have every held rank ask for the same rows of all others."""
    rows, held = asked(layout), np.arange(router.held.start, router.held.stop, dtype=np.int32)
    pattern = Pattern.of_requests(np.repeat(held, rows.size), np.tile(rows, held.size), layout)
    return direct_copies(pattern, topology) if name == "direct" else hierarchical_copies(pattern, topology, router)


def check_rows_beyond_int32(transport: Transport) -> None:
    """Plan in one process and in the job, prove, and run both ways."""
    rank, num_ranks = transport.rank, transport.num_ranks
    if num_ranks < 2:  # more slots than int32 numbers on one rank
        return
    layout, topology = Layout.block(NUM_ROWS, num_ranks), topologies(num_ranks)[-1]
    dtype = np.float32 if num_ranks == 2 else np.float64
    assert layout.counts.min() * np.dtype(dtype).itemsize > 2**31
    for name in ("direct", "hierarchical"):
        whole = build_plan(copies_of(name, layout, topology, Offline(num_ranks)), topology, Offline(num_ranks))
        whole.verify()
        assert whole.volume().rows.sum() == sum(stage.num_copies for stage in whole.stages)
        plan = build_rank_plan(copies_of(name, layout, topology, transport), transport)
        assert plan.hash() == whole.rank(rank).hash()
        with Exchange(plan, transport, 1, dtype, num_levels=topology.num_levels) as exchange:
            exchange.verify()
            _check_forward(exchange, plan, layout)
            _check_reverse(exchange, plan, layout)


def _check_forward(exchange: Exchange, plan: RankPlan, layout: Layout) -> None:
    mine = _own(asked(layout), plan)
    x = exchange.own_buffer()
    x[mine - plan.start, 0] = _value(mine)
    np.testing.assert_array_equal(exchange.forward(x)[:, 0], _value(plan.ghost_rows))


def _check_reverse(exchange: Exchange, plan: RankPlan, layout: Layout) -> None:
    partials = _value(plan.ghost_rows).astype(exchange.dtype)[:, None]
    mine = _own(asked(layout), plan)
    sums = exchange.reverse(partials)[mine - plan.start, 0]
    np.testing.assert_array_equal(sums, (layout.num_ranks - 1) * _value(mine))


def _own(rows: np.ndarray, plan: RankPlan) -> np.ndarray:
    return rows[(rows >= plan.start) & (rows < plan.start + plan.num_own)]


def _value(rows: np.ndarray) -> np.ndarray:
    """Return small whole numbers, exact in float32, that differ for neighbours."""
    return (rows % 1009 + rows // 2**20).astype(np.float64)


def wide_matrix(layouts: Layouts) -> csr_array:
    """Return a matrix of few rows and very many columns, with an entry wherever `asked` says."""
    cols = asked(layouts.cols)
    indptr = np.arange(layouts.rows.num_rows + 1) * cols.size
    indices = np.tile(cols, layouts.rows.num_rows)
    return csr_array(
        (np.arange(1.0, indices.size + 1), indices, indptr), shape=(indptr.size - 1, layouts.cols.num_rows)
    )


def check_columns_beyond_int32(transport: Transport) -> None:
    """A whole product: each strategy planned, proved and multiplied, but tree, and allgather, which moves every row."""
    rank, num_ranks = transport.rank, transport.num_ranks
    if num_ranks < 2:
        return
    layouts = Layouts(Layout.block(num_ranks + 2, num_ranks), Layout.block(NUM_ROWS, num_ranks))
    topology, matrix = topologies(num_ranks)[-1], wide_matrix(layouts)
    own = layouts.rows.own_rows(rank)
    cols = asked(layouts.cols)
    mine = cols[layouts.cols.owner(cols) == rank] - layouts.cols.offsets[rank]
    expected = matrix.data.reshape(matrix.shape[0], -1)[own.start : own.stop] @ (cols % 7)
    remote = Remote.of(matrix, layouts)
    for name in [name for name in strategy_names() if name not in ("allgather", "tree")]:
        get_strategy(name).build(remote, topology).verify(remote)
        with DistMatrix.from_rows(
            matrix[own.start : own.stop], layouts, topology, transport, strategy=name, width=1
        ) as a:
            x = a.empty(1)
            x[mine, 0] = cols[layouts.cols.owner(cols) == rank] % 7
            np.testing.assert_array_equal((a @ x)[:, 0], expected)


def check_message_beyond_2_gib(transport: Transport) -> None:
    """One message of 2 GiB + 1 MiB goes from rank 0 to rank 1 in pieces of at most 1 GiB."""
    num_rows, width = 2**11 + 1, 2**20
    layout = Layout(np.array([0, num_rows, num_rows]))
    rank, rows = transport.rank, np.arange(num_rows)
    pattern = Pattern.of_requests(np.full(num_rows * rank, 1, dtype=np.int32), np.tile(rows, rank), layout)
    plan = build_rank_plan(direct_copies(pattern, Topology.from_nodes([0, 1])), transport)
    with Exchange(plan, transport, width, np.int8) as exchange:
        x = exchange.own_buffer()
        if rank == 0:
            for row in MARKS:
                x[row] = row % 127 + 1
        ghosts = exchange.forward(x)
        if rank == 1:
            assert ghosts.nbytes > 2**31
            for row in MARKS:
                assert (ghosts[row] == row % 127 + 1).all()
        pieces = -(-num_rows * width // MAX_PIECE_BYTES)
        assert pieces == 3
        assert exchange.executed.bytes_sent.sum() == (num_rows * width if rank == 0 else 0)


BODIES = (check_rows_beyond_int32, check_columns_beyond_int32)
