"""Matchings and bounds against networkx, and volumes of plans with several stages a level."""

from __future__ import annotations

import networkx as nx
import numpy as np
import numpy.typing as npt
import pytest
from scipy.sparse import csr_array

from sparsecomm.bipartite import matching_sizes
from sparsecomm.collectives.strategy import get_strategy
from sparsecomm.layout import Layout, Layouts
from sparsecomm.pattern import Remote
from sparsecomm.plan import Plan, Stage
from sparsecomm.table import Offline
from sparsecomm.topology import Topology
from sparsecomm.volume import Bounds, bounds_of, volume_of
from tests.planning_oracles import MACHINES, Case, nonzeros, owner_list, random_case

CASES = [random_case(seed, tree) for seed, tree in enumerate([*MACHINES.values()] * 3)]


def _matching(edges: set[tuple[int, int]]) -> int:
    graph = nx.Graph()
    graph.add_edges_from((("row", row), ("col", col)) for row, col in edges)
    return len(nx.bipartite.maximum_matching(graph, [v for v in graph if v[0] == "row"])) // 2


def _bounds(case: Case) -> Bounds:
    """Return the bounds from one networkx matching for each node pair, each node in and each node out."""
    node = case.machine.groups[-1]
    rows, cols = owner_list(case.layouts.rows), owner_list(case.layouts.cols)
    remote = [(i, j, node[cols[j]], node[rows[i]]) for i, j in nonzeros(case.matrix) if node[rows[i]] != node[cols[j]]]
    names = sorted(set(node))
    pairs = [_matching({(i, j) for i, j, s, d in remote if (s, d) == (a, b)}) for a in names for b in names]
    into = [_matching({(i, j) for i, j, _, d in remote if d == n}) for n in names]
    out = [_matching({(i, j) for i, j, s, _ in remote if s == n}) for n in names]
    return Bounds(sum(pairs), max(sum(into), sum(out)), max(into + out))


def _found(case: Case) -> Bounds:
    topology = case.machine.topology
    return bounds_of(Remote.of(case.matrix, case.layouts), topology, Offline(topology.num_ranks))


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_bounds(case: Case) -> None:
    found = _found(case)
    assert found == _bounds(case)
    assert found.network <= found.two_party_minimum
    assert found.busiest_node <= found.network


def _blown_up(seed: int, name: str) -> Case:
    """Replace every entry of a small matrix by a full block: most rows and columns have twins."""
    rng = np.random.default_rng(seed)
    small = rng.random((9, 8)) < 0.35
    matrix = np.repeat(np.repeat(small, rng.integers(2, 7, 9), axis=0), rng.integers(2, 7, 8), axis=1)
    if seed % 2:  # a few rows of their own, and every other row somewhere else
        matrix = np.vstack([matrix, rng.random((4, matrix.shape[1])) < 0.3])[rng.permutation(matrix.shape[0] + 4)]
    tree = MACHINES[name]
    layouts = Layouts(*(Layout.block(size, tree.num_ranks) for size in matrix.shape))
    return Case(tree, csr_array(matrix.astype(np.int64)), layouts)


@pytest.mark.parametrize("name", ["two by two", "uneven nodes", "interleaved nodes"])
@pytest.mark.parametrize("seed", range(6))
def test_bounds_with_twins(seed: int, name: str) -> None:
    case = _blown_up(seed, name)
    assert _found(case) == _bounds(case)


def _sizes(graphs: dict[int, set[tuple[int, int]]], seed: int = 0) -> list[int]:
    edges = np.array([(g, i, j) for g, pairs in graphs.items() for i, j in pairs], dtype=np.int64).reshape(-1, 3)
    return matching_sizes(*np.random.default_rng(seed).permutation(edges).T).tolist()


@pytest.mark.parametrize("seed", range(8))
def test_matching_of_many_graphs(seed: int) -> None:
    """Graphs share their row and column numbers, which may be any, and yet have nothing to do with each other."""
    rng = np.random.default_rng(seed)
    graphs = {}
    for group in rng.choice(50, 6, replace=False).tolist():
        left, right = rng.integers(-(2**40), 2**40, 9), rng.integers(0, 12, 9)
        graphs[group] = {(int(left[a]), int(right[b])) for a, b in rng.integers(0, 9, (12, 2))}
    assert _sizes(graphs, seed) == [_matching(graphs[group]) for group in sorted(graphs)]


@pytest.mark.parametrize("seed", range(8))
def test_matching_with_twins(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graphs: dict[int, set[tuple[int, int]]] = {}
    for group in range(4):
        blocks = rng.integers(0, 5, (6, 2)).tolist()
        graphs[group] = {(10 * a + x, 10 * b + y) for a, b in blocks for x in range(a + 2) for y in range(5 - b)}
    assert _sizes(graphs, seed) == [_matching(graphs[group]) for group in sorted(graphs)]


@pytest.mark.parametrize("seed", range(8))
def test_matching_of_trees_on_a_core(seed: int) -> None:
    """Where every vertex that has a leaf is matched to one, new leaves appear until a core is left, or nothing."""
    rng = np.random.default_rng(seed)
    graphs: dict[int, set[tuple[int, int]]] = {}
    for group in range(3):
        core = {(int(a), int(b)) for a, b in rng.integers(0, 6, (9, 2)) if group}
        tree = {(v, v) for v in range(40)} | {(v, int(rng.integers(0, v))) for v in range(1, 40)}
        graphs[group] = core | set(sorted(tree)[: 20 * (group + 1)])
    assert _sizes(graphs, seed) == [_matching(graphs[group]) for group in sorted(graphs)]


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (3, 7), (40, 40)])
def test_matching_of_a_full_block(shape: tuple[int, int]) -> None:
    graph = {(i, j) for i in range(shape[0]) for j in range(shape[1])}
    assert _sizes({5: graph, 2: graph}) == [min(shape)] * 2


def test_matching_of_nothing() -> None:
    nothing = np.empty(0, dtype=np.int64)
    assert matching_sizes(nothing, nothing, nothing).size == 0


def test_bounds_are_not_the_sum_over_ranks() -> None:
    """A dense column and a dense row cross as one row each, in one of the two directions."""
    dense = np.zeros((8, 8), dtype=np.int64)
    dense[:, 0] = 1
    dense[7, :] = 1
    layout = Layout.block(8, 4)
    topology = Topology.parse("uniform:2x2")
    found = bounds_of(Remote.of(csr_array(dense), Layouts(layout, layout)), topology, Offline(4))
    # Rows 4 to 7 need column 0, row 7 needs columns 0 to 3: two rows cover it, and nothing goes the other way.
    assert found == Bounds(2, 2, 2)


def _stage(level: int, *copies: tuple[int, int, int, int]) -> Stage:
    return Stage(level, *np.array(copies, dtype=np.int32).reshape(-1, 4).T)


def _plan(*stages: Stage) -> Plan:
    """Return a plan on 2 nodes of 2 ranks, with rows 0 to 7 and ghosts for the copies below."""
    ghosts = [np.array(rows) for rows in ([], [], [0, 1, 2], [0])]
    indptr = np.cumsum([0, *(rows.size for rows in ghosts)])
    nothing = np.empty(0, dtype=np.int64)
    return Plan(
        Topology.parse("uniform:2x2"),
        np.arange(0, 9, 2),
        indptr,
        np.concatenate(ghosts).astype(np.int64),
        np.zeros(5, dtype=np.int64),
        nothing,
        stages,
    )


def test_messages_are_counted_by_stage() -> None:
    """The same two ranks that talk in two stages exchange two messages."""
    one = _plan(_stage(1, (0, 2, 0, 2), (0, 2, 1, 3), (1, 2, 0, 4)), _stage(0, (2, 3, 2, 2)))
    two = _plan(_stage(1, (0, 2, 0, 2), (1, 2, 0, 4)), _stage(1, (0, 2, 1, 3)), _stage(0, (2, 3, 2, 2)))
    for plan, crossing in ((one, 2), (two, 3)):
        plan.verify()
        volume = plan.volume()
        assert volume.rows.tolist() == [1, 3]
        assert volume.messages.tolist() == [1, crossing]
        assert volume.max_rank_rows.tolist() == [1, 3]
        assert volume.max_rank_messages.tolist() == [1, crossing]
        assert volume.max_group_in.tolist() == [1, 3]
        assert volume.max_group_out.tolist() == [1, 3]
        # Rank 2: 2 own and 3 ghost slots, 3 rows come and 1 goes.
        assert volume.max_rank_buffer == 9


def test_busiest_group_in_and_out_differ() -> None:
    """Rank 0 sends to three ranks: 2 rows leave its node, and one enters each rank."""
    layout = Layout.block(8, 4)
    dense = np.eye(8, dtype=np.int64)
    dense[2:, 0] = 1
    remote = Remote.of(csr_array(dense), Layouts(layout, layout))
    direct = get_strategy("direct").count(remote, Topology.parse("uniform:2x2"))
    assert (direct.max_group_out.tolist(), direct.max_group_in.tolist()) == ([1, 2], [1, 2])
    spread = get_strategy("direct").count(remote, Topology.parse("nodes:1,1,1,1"))
    assert (spread.max_group_out.tolist(), spread.max_group_in.tolist()) == ([0, 3], [0, 1])
    assert spread.max_rank_rows.tolist() == [0, 3]


def test_two_plans_are_counted_together() -> None:
    plan = _plan(_stage(1, (0, 2, 0, 2), (0, 2, 1, 3), (1, 2, 0, 4)), _stage(0, (2, 3, 2, 2)))
    router = Offline(4)
    both = volume_of([plan.moves(), plan.moves(reverse=True)], plan.topology, router)
    single = plan.volume()
    assert both.rows.tolist() == (2 * single.rows).tolist()
    assert both.messages.tolist() == (2 * single.messages).tolist()
    # Node 1 receives 3 rows forward and sends them back in reverse.
    assert both.max_group_in.tolist() == both.max_group_out.tolist() == [1, 3]
    assert both.max_rank_buffer == 2 * single.max_rank_buffer


def test_volumes_compare_by_value() -> None:
    plan = _plan(_stage(1, (0, 2, 0, 2), (0, 2, 1, 3), (1, 2, 0, 4)), _stage(0, (2, 3, 2, 2)))
    assert plan.volume() == plan.volume()
    assert plan.volume() != volume_of([plan.moves(reverse=True)] * 2, plan.topology, Offline(4))
    assert plan.volume() != "a volume"
    with pytest.raises(TypeError):
        hash(plan.volume())


def test_types() -> None:
    volume = _plan().volume()
    arrays: list[npt.NDArray[np.int64]] = [getattr(volume, name) for name in volume.__slots__[:-3]]
    assert {array.dtype for array in arrays} == {np.dtype(np.int64)}
    assert not any(array.flags.writeable for array in arrays)
    assert isinstance(volume.max_rank_buffer, int)
    assert isinstance(volume.num_stages, int)
