"""Minimum covers against brute force, and what a cover promises."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from sparsecomm.bipartite import greedy_cover, minimum_cover
from sparsecomm.collectives.strategy import get_strategy
from sparsecomm.cover import node_cover, rank_cover
from sparsecomm.hitting import hitting_choices
from sparsecomm.io.matrix import read_matrix
from sparsecomm.layout import Layout, Layouts
from sparsecomm.pattern import Remote
from sparsecomm.table import Offline, distinct
from sparsecomm.topology import Topology
from sparsecomm.volume import bounds_of
from tests.planning_oracles import MACHINES, Case, covered_by_row, random_case

pytestmark = pytest.mark.usefixtures("small_parts")

CASES = [random_case(seed, tree) for seed, tree in enumerate([*MACHINES.values()] * 4, start=200)]
EVERY = pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))

Graph = set[tuple[int, int]]


def _brute_force(graph: Graph) -> tuple[int, set[int]]:
    """Return the size of a minimum cover and the columns that all minimum covers have, over all sets of columns."""
    cols = sorted({col for _, col in graph})
    covers = [
        (len(chosen) + len({row for row, col in graph if col not in chosen}), set(chosen))
        for size in range(len(cols) + 1)
        for chosen in combinations(cols, size)
    ]
    least = min(size for size, _ in covers)
    return least, set.intersection(*(chosen for size, chosen in covers if size == least))


def _check(graphs: dict[int, Graph], seed: int) -> None:
    edges = np.array([(g, i, j) for g, pairs in graphs.items() for i, j in pairs], dtype=np.int64).reshape(-1, 3)
    edges = np.random.default_rng(seed).permutation(edges)
    cover = minimum_cover(*edges.T)
    expected = {group: _brute_force(graph) for group, graph in graphs.items()}
    assert cover.sizes.tolist() == [expected[group][0] for group in sorted(graphs)]
    assert cover.by_left.tolist() == [col not in expected[group][1] for group, _, col in edges.tolist()]


@pytest.mark.parametrize("seed", range(60))
def test_nearest_cover_by_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graphs: dict[int, Graph] = {}
    for group in range(4):
        rows, cols, num = rng.integers(1, 9), rng.integers(1, 9), rng.integers(1, 30)
        graphs[group] = {(int(rng.integers(rows)), int(rng.integers(cols))) for _ in range(num)}
    _check(graphs, seed)


@pytest.mark.parametrize("seed", range(40))
def test_nearest_cover_with_twins(seed: int) -> None:
    """Blocks of equal rows and columns, for which a flow between classes is dealt out to their members."""
    rng = np.random.default_rng(seed)
    graphs: dict[int, Graph] = {}
    for group in range(3):
        tall, wide = rng.integers(1, 5, 4), rng.integers(1, 4, 3)
        blocks = np.flatnonzero(rng.random(12) < 0.5)
        rows, cols = np.cumsum([0, *tall]).tolist(), np.cumsum([0, *wide]).tolist()
        graphs[group] = {(0, 0)} | {
            (i, j)
            for block in blocks.tolist()
            for i in range(rows[block // 3], rows[block // 3 + 1])
            for j in range(cols[block % 3], cols[block % 3 + 1])
        }
    _check(graphs, seed)


def test_cover_of_nothing() -> None:
    nothing = np.empty(0, dtype=np.int64)
    cover = minimum_cover(nothing, nothing, nothing)
    assert cover.by_left.size == cover.sizes.size == 0


@EVERY
def test_covers_of_node_and_rank_pairs(case: Case) -> None:
    topology, remote = case.machine.topology, Remote.of(case.matrix, case.layouts)
    router = Offline(topology.num_ranks)
    by_node, by_rank = node_cover(remote, topology, router), rank_cover(remote)
    assert by_node.row.tolist() == covered_by_row(case, case.machine.groups[-1])
    assert by_rank.row.tolist() == covered_by_row(case, range(topology.num_ranks))
    assert by_node is node_cover(remote, topology, router)


@EVERY
def test_cover_is_the_least_of_its_kind(case: Case) -> None:
    """No more than with any one side alone, or than rank covers with equal rows merged; no less than any schedule."""
    topology, remote = case.machine.topology, Remote.of(case.matrix, case.layouts)
    bounds = bounds_of(remote, topology, Offline(topology.num_ranks))
    rows = {
        name: int(get_strategy(name).count(remote, topology).rows[-1]) for name in ("hierarchical", "reduce", "cover")
    }
    assert bounds.network <= rows["cover"] == bounds.two_party_minimum <= min(rows["hierarchical"], rows["reduce"])
    turned = remote.transpose(Offline(topology.num_ranks))
    assert get_strategy("cover").count(turned, topology).rows[-1] == rows["cover"]
    assert rows["cover"] <= _merged_rank_covers(remote, topology)


def _merged_rank_covers(remote: Remote, topology: Topology) -> int:
    """Count the rows that pairs of nodes exchange when each pair of ranks covers for itself."""
    node, table = topology.rank_to_node, remote.nonzeros
    src, dst = node[table["col_rank"]], node[table.rank]
    by_row, crosses = rank_cover(remote).row, src != dst
    return sum(
        distinct([src[pick], dst[pick], table[name][pick]])[0].size
        for name, pick in (("row", crosses & by_row), ("col", crosses & ~by_row))
    )


@EVERY
def test_relay_moves_no_more_than_cover(case: Case) -> None:
    topology, remote = case.machine.topology, Remote.of(case.matrix, case.layouts)
    cover, relay = (get_strategy(name).count(remote, topology) for name in ("cover", "relay"))
    assert relay.rows[-1] <= cover.rows[-1]


def test_relay_multiplies_at_a_third_node() -> None:
    """Row 2 needs columns 0 and 1 of nodes 0 and 1; where node 1 has column 0 anyway, one partial row does for both."""
    layout = Layout.block(12, 3)
    dense = np.zeros((12, 12), dtype=np.int64)
    dense[4:7, 0] = 1  # column 0 goes to node 1
    dense[8, 4:7] = 1  # a partial row 8 comes from node 1
    dense[8, 0] = 1
    remote = Remote.of(csr_array(dense), Layouts(layout, layout))
    topology = Topology.parse("nodes:1,1,1")
    rows = {name: int(get_strategy(name).count(remote, topology).rows[-1]) for name in ("cover", "relay")}
    assert rows == {"cover": 3, "relay": 2}
    assert get_strategy("relay").build(remote, topology).multiplier.tolist() == [1, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("seed", range(30))
def test_hitting_choices(seed: int) -> None:
    """Every item is hit, and no key takes a choice without which all its items would be hit, bar the greedy's luck."""
    rng = np.random.default_rng(seed)
    entries = np.unique(rng.integers(0, (4, 40, 6), (60, 3)), axis=0)
    entries[:, 0] = entries[:, 1] % 4  # an item belongs to one key
    entries = np.unique(entries, axis=0)
    taken = hitting_choices(*entries.T)
    pairs = {tuple(pair) for pair in entries[taken][:, [0, 2]].tolist()}
    accepts: dict[tuple[int, int], set[int]] = {}
    for key, item, choice in entries.tolist():
        accepts.setdefault((key, item), set()).add(choice)
    assert all(any((key, choice) in pairs for choice in choices) for (key, _), choices in accepts.items())
    for key in range(4):
        mine = [choices for (k, _), choices in accepts.items() if k == key]
        least = next(n for n in range(7) if any(all(set(c) & m for m in mine) for c in combinations(range(6), n)))
        assert least <= sum(k == key for k, _ in pairs) <= least + 1


@pytest.mark.parametrize("seed", range(40))
def test_greedy_cover(seed: int) -> None:
    """Covers every edge, is not smaller than the minimum, and is the same alone as beside other graphs."""
    rng = np.random.default_rng(seed)
    edges = np.unique(rng.integers(0, [4, *rng.integers(2, 14, 2)], (int(rng.integers(0, 90)), 3)), axis=0)
    group, row, col = edges.T
    cover, least = greedy_cover(group, row, col), minimum_cover(group, row, col)
    names = np.unique(group)
    assert cover.sizes.size == names.size
    assert (cover.sizes >= least.sizes).all()
    for size, name in zip(cover.sizes.tolist(), names, strict=True):
        mine = group == name
        rows, cols = set(row[mine & cover.by_left].tolist()), set(col[mine & ~cover.by_left].tolist())
        assert len(rows) + len(cols) <= size
        assert not any(c in cols for c in col[mine & cover.by_left].tolist())
        alone = greedy_cover(group[mine], row[mine], col[mine])
        assert alone.by_left.tolist() == cover.by_left[mine].tolist()


def test_greedy_cover_of_a_star_and_of_a_path() -> None:
    """Graphs whose leaves decide everything."""
    star, zeros = np.arange(6), np.zeros(6, dtype=np.int64)
    assert greedy_cover(zeros, zeros, star).sizes.tolist() == greedy_cover(zeros, star, zeros).sizes.tolist() == [1]
    assert greedy_cover(zeros, star, zeros).by_left.tolist() == [False] * 6
    path = np.array([(0, 0), (1, 0), (1, 1), (2, 1), (2, 2), (3, 2)])
    assert greedy_cover(zeros, *path.T).sizes.tolist() == [3]


def test_gap_of_the_greedy_cover(data_dir: Path) -> None:
    """Less than one per cent above the minimum here; every row of the cover crosses once."""
    topology, matrix = Topology.parse("uniform:4x8"), read_matrix(str(data_dir / "matrices/copter2.graph.gz"))
    layouts = Layouts(*(Layout.block(size, topology.num_ranks) for size in matrix.shape))
    remote = Remote.of(matrix, layouts)
    assert node_cover(remote, topology, Offline(topology.num_ranks)).size == 29_540
    assert get_strategy("cover-greedy").count(remote, topology).rows[-1] <= 29_558
