"""Rows that cross, against sets and networkx; refinement, which lowers them; auto, which picks the least."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from scipy.sparse import csr_array

from sparsecomm.bipartite import matching_sizes
from sparsecomm.errors import InputError, SparseCommError
from sparsecomm.io.matrix import read_matrix
from sparsecomm.layout import Layout, Layouts
from sparsecomm.matching_loops import match
from sparsecomm.partition import auto
from sparsecomm.partition.child import Child
from sparsecomm.partition.goals import GOALS, judge
from sparsecomm.partition.metrics import measure
from sparsecomm.partition.patterns import near_classes, pattern_classes
from sparsecomm.partition.refine import refine
from sparsecomm.partition.registry import partition_rows
from sparsecomm.partition.request import Request
from sparsecomm.partition.service import by_cover, by_use
from sparsecomm.partition.structure import Structure
from sparsecomm.topology import Topology
from tests.partition_oracles import cover_rows, crossing, gather_rows, loads, owners, reduce_rows


@pytest.fixture(autouse=True, scope="module")
def _one_child() -> Iterator[None]:
    """Every library is loaded once for all tests."""
    Child.start()
    yield
    Child.stop()


def _case(seed: int, square: bool = True) -> tuple[csr_array[Any], Layouts]:
    rng = np.random.default_rng(seed)
    shape = (40, 40) if square else (40, 25)
    matrix = csr_array(rng.random(shape) < 0.1, dtype=np.float32)
    rows, cols = (Layout.from_owners(rng.integers(0, 6, size), 6) for size in shape)
    return matrix, Layouts(rows, rows if square else cols)


@pytest.mark.parametrize("square", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_rows_of_every_level(seed: int, square: bool) -> None:
    matrix, layouts = _case(seed, square)
    topology = Topology.parse("uniform:3x2")
    found = measure(matrix, layouts, topology, Request())["levels"]
    for level, group in (("node", list(range(6))), ("network", topology.rank_to_node.tolist())):
        pairs = crossing(matrix, layouts, group)
        rows = {way: found[level][way]["rows"] for way in ("gather", "reduce", "cover")}
        assert rows == {"gather": gather_rows(pairs), "reduce": reduce_rows(pairs), "cover": cover_rows(pairs)}
        assert found[level]["gather"]["messages"] == len(pairs)
        into, out = defaultdict(set), defaultdict(set)
        for (src, dst), edges in pairs.items():
            into[dst] |= {j for _, j in edges}
            out[src] |= {(dst, j) for _, j in edges}
        assert found[level]["gather"]["max_in"] == max(map(len, into.values()))
        assert found[level]["gather"]["max_out"] == max(map(len, out.values()))


@pytest.mark.parametrize("seed", range(4))
def test_imbalance_and_cut(seed: int) -> None:
    matrix, layouts = _case(seed)
    topology = Topology.parse("uniform:3x2")
    found = measure(matrix, layouts, topology, Request())
    held = np.array(loads(matrix, layouts))
    assert found["imbalance"]["nnz"] == pytest.approx(held.max() / held.mean(), abs=1e-6)
    by_node = held.reshape(3, 2).sum(axis=1)
    assert found["imbalance"]["node_nnz"] == pytest.approx(by_node.max() / by_node.mean(), abs=1e-6)
    node = [topology.rank_to_node[owner] for owner in owners(layouts.rows)]
    edges = {frozenset((int(i), int(j))) for i, j in zip(*matrix.nonzero(), strict=True) if node[i] != node[j]}
    assert found["edge_cut"] == len(edges)


@pytest.mark.parametrize("seed", range(10))
def test_compiled_matching(seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = csr_array(rng.random((30, 40)) < rng.choice([0.03, 0.1, 0.5]))
    mate = match(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64), 40)
    pairs = [(row, int(col)) for row, col in enumerate(mate) if col >= 0]
    assert len({col for _, col in pairs}) == len(pairs)
    assert all(matrix[[row], [col]][0] for row, col in pairs)
    graph = nx.Graph([(row, 100 + int(col)) for row, col in zip(*matrix.nonzero(), strict=True)])
    assert len(pairs) == len(nx.max_weight_matching(graph, maxcardinality=True))


def test_matching_of_many_edges_uses_the_compiled_loop() -> None:
    """Rows of a band, far more edges than scipy is asked to match; a perfect matching is the diagonal."""
    size = 2000
    row, step = np.divmod(np.arange(size * 20), 20)
    assert matching_sizes(np.zeros(row.size, np.int64), row, (row + step) % size).tolist() == [size]


@pytest.mark.parametrize("square", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_nets_count_what_crosses(seed: int, square: bool) -> None:
    """Parts touched beyond the first: a gather if columns serve, the minimum cover if the cover says who serves."""
    matrix, layouts = _case(seed, square)
    structure = Structure.of(matrix)
    part = np.array(owners(layouts.rows) if square else owners(layouts.rows) + owners(layouts.cols), dtype=np.int32)
    pairs = crossing(matrix, layouts, list(range(6)))

    def beyond_the_first(nets: csr_array[Any]) -> int:
        pieces = np.split(nets.indices, nets.indptr[1:-1])
        return sum(len(set(part[piece].tolist())) - 1 for piece in pieces if piece.size)

    assert beyond_the_first(structure.nets(None)) == gather_rows(pairs)
    assert beyond_the_first(structure.nets(by_cover(structure, part, 6))) == cover_rows(pairs)
    assert beyond_the_first(structure.nets(by_use(structure, part, 6))) >= cover_rows(pairs)


@pytest.mark.parametrize("gather", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_refinement_lowers_rows_within_limits(seed: int, gather: bool) -> None:
    matrix = read_matrix(f"rmat:7:4:{seed}")
    structure, rng = Structure.of(matrix), np.random.default_rng(seed)
    part = rng.integers(0, 4, structure.num_vertices).astype(np.int32)
    weights = structure.weights[:, None]
    limits = np.full((4, 1), int(1.2 * matrix.nnz / 4))
    after = refine(structure, part, weights, limits, seed=seed, rounds=4, gather=gather)
    rows = []
    for found in (part, after):
        layout = Layout.from_owners(found, 4)
        pairs = crossing(matrix, Layouts(layout, layout), [0, 1, 2, 3])
        rows.append(gather_rows(pairs) if gather else cover_rows(pairs))
    assert rows[1] < rows[0]
    assert (np.bincount(after, structure.weights, 4) <= limits[:, 0]).all()


def test_refinement_empties_overfull_parts() -> None:
    structure = Structure.of(read_matrix("grid2d:16"))
    part = np.zeros(256, dtype=np.int32)
    limits = np.full((4, 1), int(1.1 * structure.weights.sum() / 4))
    after = refine(structure, part, structure.weights[:, None], limits, seed=0, rounds=2)
    assert (np.bincount(after, structure.weights, 4) <= limits[:, 0]).all()


@pytest.mark.parametrize("seed", range(5))
def test_pattern_classes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    few = rng.random((6, 30)) < 0.2
    few[0] = False
    pattern = csr_array(few[rng.integers(0, 6, 50)], dtype=np.int8)
    sets = [frozenset(pattern.indices[a:b].tolist()) for a, b in zip(pattern.indptr, pattern.indptr[1:], strict=False)]
    classes = pattern_classes(pattern).tolist()
    assert all((classes[i] == classes[j]) == (sets[i] == sets[j]) for i in range(50) for j in range(50))


def test_near_classes_share_most_columns() -> None:
    rng = np.random.default_rng(0)
    few = np.repeat(rng.random((5, 400)) < 0.3, 12, axis=0)
    few ^= rng.random(few.shape) < 0.005
    pattern = csr_array(few, dtype=np.int8)
    classes = near_classes(pattern, seed=0)
    for one in np.unique(classes):
        members = np.flatnonzero(classes == one)
        for row in members[1:]:
            common, either = (few[members[0]] & few[row]).sum(), (few[members[0]] | few[row]).sum()
            assert common >= 0.8 * either
    assert np.unique(classes).size < 30


@pytest.mark.parametrize("goal", GOALS)
def test_auto_is_no_worse_than_what_it_tried(goal: str) -> None:
    matrix, topology = read_matrix("rmat:8:6"), Topology.parse("uniform:2x2")
    request = Request(goal=goal)
    trials = auto.portfolio(matrix, topology, request)
    found = partition_rows(matrix, topology, "auto", goal=goal)
    done = [trial for trial in trials if trial.layouts is not None]
    kept = [trial.value for trial in done if max(loads(matrix, trial.layouts)) <= 1.05 * matrix.nnz / 4]
    assert len(done) >= 4
    assert max(loads(matrix, found)) <= 1.05 * matrix.nnz / 4
    assert judge(matrix, found, topology, request) <= min(kept)


def test_auto_by_a_function() -> None:
    """A goal that only block reaches."""
    matrix, topology = read_matrix("er:200:4"), Topology.parse("uniform:2x2")
    found = partition_rows(
        matrix, topology, "auto", effort=0, balance=2.0, goal=lambda layouts: float(layouts.rows.old_to_new is not None)
    )
    assert found.rows.old_to_new is None


def test_auto_remembers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    matrix, topology = read_matrix("rmat:8:6"), Topology.parse("uniform:2x2")
    first = partition_rows(matrix, topology, "auto", effort=0, cache=True)

    def refuse(*_: object) -> list[auto.Trial]:
        raise AssertionError("tried again")

    monkeypatch.setattr(auto, "portfolio", refuse)
    again = partition_rows(2 * matrix, topology, "auto", effort=0, cache=True)
    assert owners(first.rows) == owners(again.rows)
    for other in ({"seed": 1}, {"balance": 1.2}, {"goal": "network"}):
        with pytest.raises(AssertionError, match="tried again"):
            partition_rows(matrix, topology, "auto", effort=0, cache=True, **other)
    with pytest.raises(AssertionError, match="tried again"):
        partition_rows(matrix, Topology.parse("uniform:4x1"), "auto", effort=0, cache=True)


def test_auto_mends_a_damaged_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    matrix, topology = read_matrix("rmat:8:6"), Topology.parse("uniform:2x2")
    first = partition_rows(matrix, topology, "auto", effort=0, cache=True)
    for path in tmp_path.rglob("*.npy"):
        path.write_bytes(b"no array")
    assert owners(partition_rows(matrix, topology, "auto", effort=0, cache=True).rows) == owners(first.rows)


def test_auto_goes_on_without_a_method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "_BY_EFFORT", (("given:/nowhere", "nnz"), (), (), ()))
    matrix, topology = read_matrix("rmat:8:6"), Topology.parse("uniform:2x2")
    found = partition_rows(matrix, topology, "auto")
    assert owners(found.rows) == owners(partition_rows(matrix, topology, "nnz").rows)


def test_auto_without_any_method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "_BY_EFFORT", (("given:/nowhere",), (), (), ()))
    with pytest.raises(SparseCommError, match=r"no partition method succeeded: given:/nowhere: "):
        partition_rows(read_matrix("grid2d:4"), Topology.parse("uniform:2x2"), "auto")


def test_unknown_goal() -> None:
    with pytest.raises(InputError, match="unknown goal 'fame'; give one of time, network"):
        partition_rows(read_matrix("grid2d:4"), Topology.parse("uniform:2x2"), "auto", goal="fame")
