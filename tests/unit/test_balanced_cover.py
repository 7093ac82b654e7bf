"""Covers with freedom: the cheapest of all minimum covers, closures, and ranks that are kept even."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from sparsecomm.bipartite import minimum_cover, minimum_covers
from sparsecomm.closure import maximum_closure
from sparsecomm.collectives.strategy import get_strategy
from sparsecomm.io.matrix import read_matrix
from sparsecomm.layout import Layout, Layouts
from sparsecomm.pattern import Remote
from sparsecomm.topology import Topology
from tests.planning_oracles import MACHINES, Case, plan_copies, random_case

CASES = [random_case(seed, tree) for seed, tree in enumerate([*MACHINES.values()] * 4, start=400)]
EVERY = pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))


@pytest.mark.parametrize("seed", range(40))
def test_closure_by_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 9))
    profit, arcs = rng.integers(-5, 6, size), rng.integers(0, size, (2, int(rng.integers(0, 14))))
    closed = [
        set(chosen)
        for count in range(size + 1)
        for chosen in combinations(range(size), count)
        if all(head in chosen or tail not in chosen for tail, head in arcs.T.tolist())
    ]
    most = max(sum(profit[list(chosen)]) for chosen in closed)
    least = set.intersection(*(chosen for chosen in closed if sum(profit[list(chosen)]) == most))
    assert set(np.flatnonzero(maximum_closure(profit, *arcs)).tolist()) == least


def test_closure_of_nothing() -> None:
    nothing = np.empty(0, dtype=np.int64)
    assert maximum_closure(nothing, nothing, nothing).size == 0


@pytest.mark.parametrize("seed", range(60))
def test_cheapest_of_all_minimum_covers(seed: int) -> None:
    """By prices on columns, over all sets of columns that leave a minimum cover."""
    rng = np.random.default_rng(seed)
    edges = np.unique(rng.integers(0, rng.integers(2, 8, 2), (int(rng.integers(1, 22)), 2)), axis=0)
    row, col = edges.T
    group = np.zeros_like(row)
    covers = minimum_covers(group, row, col)
    price = rng.integers(-6, 7, 8)  # of having a column, whichever row is spared for it
    column_of = np.empty(covers.always.size, dtype=np.int64)
    column_of[covers.edges.right] = col
    by_row = covers.cheapest(-price[column_of[covers.pairs.right]])
    sets = [set(c) for n in range(9) for c in combinations(sorted(set(col.tolist())), n)]
    sizes = [len(cols) + len({r for r, c in edges.tolist() if c not in cols}) for cols in sets]
    minimal = [cols for cols, size in zip(sets, sizes, strict=True) if size == min(sizes)]
    assert covers.sizes.tolist() == [min(sizes)]
    found = {c for (_, c), served in zip(edges.tolist(), by_row.tolist(), strict=True) if not served}
    cost = {frozenset(cols): sum(price[list(cols)]) for cols in minimal}
    assert cost[frozenset(found)] == min(cost.values())
    nearest = covers.cheapest(np.zeros(covers.pairs.left.size, dtype=np.int64))
    assert nearest.tolist() == minimum_cover(group, row, col).by_left.tolist()


@EVERY
def test_no_pair_of_nodes_exchanges_more(case: Case) -> None:
    topology, remote = case.machine.topology, Remote.of(case.matrix, case.layouts)
    products = [get_strategy(name).build(remote, topology) for name in ("cover", "cover-balanced")]
    node = topology.rank_to_node.tolist()
    exchanged = []
    for product in products:
        product.verify(remote)
        moves = [
            (node[ends[0]], node[ends[1]])
            for plan, turn in ((product.gather, 1), (product.scatter, -1))
            for stage in plan_copies(plan)
            for copy in stage
            if node[copy.src] != node[copy.dst]
            for ends in [(copy.src, copy.dst)[::turn]]
        ]
        exchanged.append(sorted(moves))
    assert exchanged[0] == exchanged[1]
    cover, balanced = (product.volume() for product in products)
    assert balanced.max_rank_rows[-1] <= cover.max_rank_rows[-1]
    assert max(balanced.max_group_in[-1], balanced.max_group_out[-1]) <= max(
        cover.max_group_in[-1], cover.max_group_out[-1]
    )


@pytest.mark.parametrize(
    ("file", "spec", "share"),
    [
        ("ego-twitter.npz", "uniform:8x6", 0.92),
        ("mdual.graph.gz", "uniform:8x6", 0.85),
        ("xenon1.mtx.gz", "uniform:8x6", 0.8),
    ],
)
def test_busiest_rank_of_real_matrices(data_dir: Path, file: str, spec: str, share: float) -> None:
    topology, matrix = Topology.parse(spec), read_matrix(str(data_dir / f"matrices/{file}"))
    layout = Layout.block(matrix.shape[0], topology.num_ranks)
    remote = Remote.of(matrix, Layouts(layout, layout))
    cover, balanced = (get_strategy(name).count(remote, topology) for name in ("cover", "cover-balanced"))
    assert balanced.rows[-1] == cover.rows[-1]
    assert balanced.max_group_in[-1] == cover.max_group_in[-1]
    assert balanced.max_group_out[-1] == cover.max_group_out[-1]
    assert balanced.max_rank_rows[-1] <= share * cover.max_rank_rows[-1]
