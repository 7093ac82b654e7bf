"""Random patterns, layouts and machines, and what every strategy must do with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from scipy.sparse import coo_array, csr_array

from sparsecomm.collectives.exchange import Exchange
from sparsecomm.collectives.execute import execute, execute_reverse
from sparsecomm.collectives.strategy import get_strategy, strategy_names
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.collectives.transport.local import run_local
from sparsecomm.layout import Layout, Layouts
from sparsecomm.pattern import Remote
from sparsecomm.plan import Plan
from sparsecomm.product import Product
from sparsecomm.table import Offline
from sparsecomm.topology import Topology
from sparsecomm.volume import bounds_of

MAX_ROWS = 24
Rows = np.ndarray


@dataclass(frozen=True)
class Drawn:
    """A matrix of whole numbers in new numbering, who owns what, and the machine."""

    matrix: csr_array
    layouts: Layouts
    topology: Topology

    def __repr__(self) -> str:
        """Return Python that makes the same one."""
        coo = self.matrix.tocoo()
        places = list(zip(coo.row.tolist(), coo.col.tolist(), coo.data.tolist(), strict=True))
        offsets = [layout.offsets.tolist() for layout in self.layouts]
        return f"drawn({places}, {offsets[0]}, {offsets[1]}, {self.topology.groups[:-1].tolist()})"


def drawn(places: list[tuple[int, int, int]], rows: list[int], cols: list[int], groups: list[list[int]]) -> Drawn:
    layouts = Layouts(Layout(np.array(rows)), Layout(np.array(cols)))
    row, col, value = np.array(places, dtype=np.int64).reshape(-1, 3).T
    matrix = csr_array(coo_array((value, (row, col)), shape=(rows[-1], cols[-1])))
    names = [f"level{number}" for number in range(len(groups))] + ["network"]
    levels = [{"name": name, "latency_s": 1e-6, "bandwidth_Bps": 1e9} for name in names]
    return Drawn(matrix, layouts, Topology.from_dict({"name": "drawn", "levels": levels, "groups": groups}))


@st.composite
def machines(draw: st.DrawFn, max_ranks: int) -> list[list[int]]:
    """Draw trees of two to four levels: groups of any sizes, their ranks in any order."""
    num_ranks = draw(st.integers(1, max_ranks))
    groups = [draw(st.lists(st.integers(0, max_ranks), min_size=num_ranks, max_size=num_ranks))]
    for _ in range(draw(st.integers(0, 2))):
        parent = draw(st.lists(st.integers(0, 3), min_size=max_ranks + 1, max_size=max_ranks + 1))
        groups.append([parent[group] for group in groups[-1]])
    return groups


def offsets(num_ranks: int, num_rows: int) -> st.SearchStrategy[list[int]]:
    inner = st.lists(st.integers(0, num_rows), min_size=num_ranks - 1, max_size=num_ranks - 1)
    return inner.map(lambda bounds: [0, *sorted(bounds), num_rows])


@st.composite
def products(draw: st.DrawFn, max_ranks: int = 9) -> Drawn:
    """Draw a product: square or not, ranks that own nothing, empty rows, dense blocks, everything."""
    groups = draw(machines(max_ranks))
    num_rows, num_cols = draw(st.tuples(*[st.integers(1, MAX_ROWS)] * 2))
    num_ranks = len(groups[0])
    rows = draw(offsets(num_ranks, num_rows))
    if draw(st.booleans()):
        num_cols, cols = num_rows, rows
    else:
        cols = draw(offsets(num_ranks, num_cols))
    place = st.tuples(st.integers(0, num_rows - 1), st.integers(0, num_cols - 1), st.integers(1, 9))
    return drawn(draw(st.lists(place, max_size=60, unique_by=lambda one: one[:2])), rows, cols, groups)


def check_planning(case: Drawn) -> None:
    """Prove, count, bound and run every strategy's product."""
    remote, offline = Remote.of(case.matrix, case.layouts), Offline(case.topology.num_ranks)
    bounds = bounds_of(remote, case.topology, offline)
    assert bounds.network <= bounds.two_party_minimum
    for name in strategy_names():
        strategy = get_strategy(name)
        product = strategy.build(remote, case.topology)
        product.verify(remote)
        volume = product.volume()
        assert strategy.count(remote, case.topology) == volume
        assert volume.rows[-1] >= bounds.network
        assert max(volume.max_group_in[-1], volume.max_group_out[-1]) >= bounds.busiest_node
        for plan in (product.gather, product.scatter):
            check_adjoint(plan)
        check_multiplied(case, product, remote)


def check_adjoint(plan: Plan) -> None:
    """<G x, y> == <x, G' y> in whole numbers."""
    xs, ys = (_blocks(indptr, seed) for seed, indptr in enumerate((plan.offsets, plan.ghost_indptr)))
    ghosts, sums = execute(plan, xs), execute_reverse(plan, ys)
    assert np.array_equal(np.concatenate(ghosts), np.concatenate(xs)[plan.ghost_rows])
    assert np.vdot(np.concatenate(ghosts), np.concatenate(ys)) == np.vdot(np.concatenate(xs), np.concatenate(sums))


def check_multiplied(case: Drawn, product: Product, remote: Remote) -> None:
    """Multiply each nonzero where the product says, with the rows that its plans bring there."""
    x = _block(case.matrix.shape[1], 2)
    y = np.zeros((case.matrix.shape[0], x.shape[1]), dtype=np.int64)
    row, col = case.matrix.nonzero()
    own = case.layouts.rows.owner(row) == case.layouts.cols.owner(col)
    np.add.at(y, row[own], case.matrix.data[own, None] * x[col[own]])
    table, rank = remote.nonzeros, product.multiplier
    ghosts = np.concatenate(execute(product.gather, np.split(x, case.layouts.cols.offsets[1:-1])))
    at = _ghost_places(product.gather, rank, table["col"])
    values = case.matrix.data[~own, None] * np.where(at[:, None] >= 0, np.append(ghosts, x, 0)[at], x[table["col"]])
    partials = np.zeros((product.scatter.ghost_rows.size, x.shape[1]), dtype=np.int64)
    at = _ghost_places(product.scatter, rank, table["row"])
    np.add.at(partials, at[at >= 0], values[at >= 0])
    np.add.at(y, table["row"][at < 0], values[at < 0])
    blocks = np.split(y, case.layouts.rows.offsets[1:-1])
    sums = execute_reverse(product.scatter, np.split(partials, product.scatter.ghost_indptr[1:-1]), blocks)
    assert np.array_equal(np.concatenate(sums), case.matrix @ x)


def check_exchange(case: Drawn) -> None:
    """Run the plans of every strategy on threads: the same bits as the reference."""
    remote = Remote.of(case.matrix, case.layouts)
    plans = []
    for name in strategy_names():
        product = get_strategy(name).build(remote, case.topology)
        plans += [product.gather, product.scatter]

    def body(transport: Transport) -> None:
        rank = transport.rank
        for plan in plans:
            xs, ys = (_blocks(indptr, seed) for seed, indptr in enumerate((plan.offsets, plan.ghost_indptr)))
            with Exchange(plan.rank(rank), transport, xs[0].shape[1], np.int64) as exchange:
                assert np.array_equal(exchange.forward(xs[rank]), execute(plan, xs)[rank])
                assert np.array_equal(exchange.reverse(ys[rank]), execute_reverse(plan, ys)[rank])

    run_local(case.topology.num_ranks, body, deadline_s=200, max_bytes=64)


def _block(num_rows: int, seed: int) -> Rows:
    return np.random.default_rng(seed).integers(-99, 99, (num_rows, 2))


def _blocks(indptr: Rows, seed: int) -> list[Rows]:
    return np.split(_block(int(indptr[-1]), seed), indptr[1:-1])


def _ghost_places(plan: Plan, rank: Rows, row: Rows) -> Rows:
    """Return where row `row[i]` lies among the ghosts of `rank[i]`, all ranks end to end; -1 where the rank owns it."""
    ghosts = [plan.ghost_rows[a:b].tolist() for a, b in zip(plan.ghost_indptr, plan.ghost_indptr[1:], strict=False)]
    place = np.full(row.size, -1)
    for i, (p, r) in enumerate(zip(rank.tolist(), row.tolist(), strict=True)):
        if not plan.offsets[p] <= r < plan.offsets[p + 1]:
            place[i] = plan.ghost_indptr[p] + ghosts[p].index(r)
    return place
