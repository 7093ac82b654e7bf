"""Every partitioner: a layout, balanced, the same for the same seed; limits kept or refused with numbers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from sparsecomm.errors import InputError
from sparsecomm.io.matrix import read_matrix
from sparsecomm.layout import Layout, Layouts
from sparsecomm.partition import libraries
from sparsecomm.partition.child import Child
from sparsecomm.partition.contiguous import cut_in_order
from sparsecomm.partition.registry import (
    get_partitioner,
    partition_matrix,
    partition_rows,
    partitioner_names,
    register_partitioner,
)
from sparsecomm.partition.request import Request
from sparsecomm.partition.streaming import partition_stream
from sparsecomm.topology import Topology
from tests.partition_oracles import cover_rows, crossing, gather_rows, loads, owners

METHODS = [name for name in partitioner_names() if name != "auto"]
LIBRARIES = [library.method for library in libraries.LIBRARIES]


@pytest.fixture(autouse=True, scope="module")
def _one_child() -> Iterator[None]:
    """Every library is loaded once for all tests."""
    Child.start()
    yield
    Child.stop()


def _random(seed: int, shape: tuple[int, int], density: float = 0.08) -> csr_array[Any]:
    rng = np.random.default_rng(seed)
    return csr_array(rng.random(shape) < density, dtype=np.float32)


MATRICES = {
    "graph": read_matrix("rmat:7:6"),
    "mesh": read_matrix("grid2d:9"),
    "tall": _random(1, (120, 40)),
    "wide": _random(2, (40, 120)),
    "few rows": read_matrix("grid2d:2:1"),
    "no nonzeros": csr_array((7, 7), dtype=np.float32),
    "no rows": csr_array((0, 5), dtype=np.float32),
}


def _same(one: Layouts, other: Layouts) -> bool:
    return all(owners(a) == owners(b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("machine", ["uniform:2x3", "nodes:2,1"])
@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("method", METHODS)
def test_a_layout(method: str, name: str, machine: str) -> None:
    matrix, topology = MATRICES[name], Topology.parse(machine)
    layouts = partition_rows(matrix, topology, method)
    assert (layouts.rows.num_rows, layouts.cols.num_rows) == matrix.shape
    assert layouts.rows.num_ranks == layouts.cols.num_ranks == topology.num_ranks
    assert (layouts.rows is layouts.cols) == (matrix.shape[0] == matrix.shape[1])


@pytest.mark.parametrize("method", [name for name in METHODS if name != "block"])
def test_balance(method: str) -> None:
    matrix, topology = read_matrix("rmat:10:8"), Topology.parse("summit:2")
    layouts = partition_rows(matrix, topology, method)
    found, heaviest = np.array(loads(matrix, layouts)), int(np.diff(matrix.indptr).max())
    mean = matrix.nnz / 12
    slack = heaviest if method in ("nnz", "random", "rcm") else 0
    assert found.max() <= max(1.05 * mean, heaviest) + slack
    assert np.bincount(topology.rank_to_node, found).max() <= max(1.05 * matrix.nnz / 2, heaviest) + slack


@pytest.mark.parametrize("method", METHODS)
def test_equal_seeds(method: str) -> None:
    matrix, topology = MATRICES["graph"], Topology.parse("uniform:2x2")
    first, second = (partition_rows(matrix, topology, method, seed=5) for _ in range(2))
    assert _same(first, second)


def test_random_draws_by_seed() -> None:
    matrix, topology = MATRICES["graph"], Topology.parse("uniform:2x2")
    assert not _same(*(partition_rows(matrix, topology, "random", seed=seed) for seed in (1, 2)))


@pytest.mark.parametrize("seed", range(30))
def test_contiguous_cut_is_the_best_there_is(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.integers(0, 9, int(rng.integers(1, 11)))
    parts = int(rng.integers(1, 5))
    found = cut_in_order(weights, np.full(parts, 1 / parts))
    assert (np.diff(found) >= 0).all()
    ends = itertools.combinations_with_replacement(range(weights.size + 1), parts - 1)
    least = min(max(weights[a:b].sum() for a, b in itertools.pairwise((0, *cut, weights.size))) for cut in ends)
    assert np.bincount(found, weights, parts).max() == least


@pytest.mark.parametrize("method", METHODS)
def test_weights(method: str) -> None:
    """A rank that weighs nothing gets nothing; one that weighs twice as much gets about twice as much."""
    matrix, topology = read_matrix("grid2d:24"), Topology.parse("uniform:2x2")
    found = loads(matrix, partition_rows(matrix, topology, method, weights=(2.0, 1.0, 0.0, 1.0)))
    assert found[2] == 0
    assert np.array(found) == pytest.approx(matrix.nnz * np.array([0.5, 0.25, 0, 0.25]), rel=0.1)


@pytest.mark.parametrize("method", METHODS)
def test_a_node_without_share(method: str) -> None:
    matrix, topology = MATRICES["mesh"], Topology.parse("uniform:2x2")
    found = loads(matrix, partition_rows(matrix, topology, method, weights=(1.0, 1.0, 0.0, 0.0)))
    assert found[2:] == [0, 0]


@pytest.mark.parametrize("weights", [(1.0,), (1.0, -1.0, 1.0, 1.0), (0.0,) * 4, (1.0, float("nan"), 1.0, 1.0)])
def test_weights_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="weights"):
        partition_rows(MATRICES["mesh"], Topology.parse("uniform:2x2"), weights=weights)


def test_memory_of_all_ranks() -> None:
    matrix, topology = MATRICES["mesh"], Topology.parse("uniform:2x2")
    # 81 rows of X and of Y of 256 bytes; 369 nonzeros of 12 bytes.
    total = 2 * 81 * 256 + matrix.nnz * 12
    with pytest.raises(InputError, match=rf"takes {total:,} bytes, but 4 ranks of 10,000 bytes have 40,000; use 5"):
        partition_rows(matrix, topology, memory_bytes=10_000)


def test_memory_of_one_row() -> None:
    heavy = np.eye(64)
    heavy[3] = 1
    with pytest.raises(InputError, match=r"row 3 alone takes 1,280 bytes, but a rank has 1,200"):
        partition_rows(csr_array(heavy), Topology.parse("uniform:16x2"), memory_bytes=1_200)


def test_memory_of_one_rank() -> None:
    matrix = csr_array(np.tri(64))
    with pytest.raises(InputError, match=r"rank 1 would hold 35,008 bytes of 30,000"):
        partition_rows(matrix, Topology.parse("uniform:1x2"), "block", memory_bytes=30_000)


@pytest.mark.parametrize("method", ["metis", "twins"])
def test_memory_is_kept_where_nonzeros_alone_would_not(method: str) -> None:
    """Half of the rows hold all nonzeros, but every row takes memory."""
    matrix = csr_array(np.tri(60, 120, 60, dtype=np.float32)[np.r_[:60, :60]] * (np.arange(120)[:, None] < 60))
    memory = 60 * 2 * 256 + matrix.nnz * 8
    layouts = partition_rows(matrix, Topology.parse("uniform:2x1"), method, memory_bytes=memory, balance=1.3)
    held = 2 * 256 * layouts.rows.counts + 12 * np.array(loads(matrix, layouts))
    assert held.max() <= memory


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("side", ["rows", "columns", "both"])
def test_sides(side: str, seed: int) -> None:
    matrix, topology = _random(seed, (60, 45)), Topology.parse("uniform:2x2")
    layouts = partition_rows(matrix, topology, "metis", side=side)
    assert (layouts.rows.num_rows, layouts.cols.num_rows) == (60, 45)
    turned = csr_array(matrix.T.tocsr())
    held = loads(matrix, layouts) if side != "columns" else loads(turned, Layouts(layouts.cols, layouts.rows))
    assert max(held) <= 1.05 * matrix.nnz / 4 + np.diff(matrix.indptr).max()


def test_columns_follow_their_users() -> None:
    """Without rows that tie, a column belongs where most of its nonzeros are."""
    matrix, topology = _random(3, (90, 30), 0.2), Topology.parse("uniform:3x1")
    layouts = partition_rows(matrix, topology, "nnz")
    rows, cols = owners(layouts.rows), owners(layouts.cols)
    for column in range(30):
        uses = np.bincount([rows[i] for i in matrix[:, [column]].nonzero()[0]], minlength=3)
        assert uses[cols[column]] == uses.max()


def test_twins_find_residue_classes() -> None:
    """Rows r and r + N/16 have the same columns: nothing tells the partitioner so."""
    matrix, topology = read_matrix("radixnet:1024:0"), Topology.parse("uniform:2x2")
    layouts = partition_rows(matrix, topology, "twins")
    node = topology.rank_to_node.tolist()
    # 64 classes in a ring, cut at two places: 16 rows cross at each.
    assert gather_rows(crossing(matrix, layouts, node)) <= 32


def test_two_levels_cross_the_network_less_than_one() -> None:
    matrix, topology = read_matrix("grid2d:32"), Topology.parse("uniform:2x6")
    node = topology.rank_to_node.tolist()
    rows = [
        cover_rows(crossing(matrix, partition_rows(matrix, topology, "metis", flat=flat, refine=False), node))
        for flat in (False, True)
    ]
    # The best cut of a mesh of 32 x 32 in two: 32 rows each way.
    assert rows[0] <= rows[1]
    assert rows[0] <= 1.5 * 64


def test_idle_rows_are_spread() -> None:
    dense = np.zeros((100, 100))
    dense[:20, :20] = 1
    layouts = partition_rows(csr_array(dense), Topology.parse("uniform:2x2"), "metis")
    assert layouts.rows.counts.max() - layouts.rows.counts.min() <= 1


@pytest.mark.parametrize("block", [1, 7, 128])
def test_streaming_in_blocks(block: int) -> None:
    matrix, topology = MATRICES["graph"], Topology.parse("nodes:3,2")
    blocks = (matrix[first : first + block] for first in range(0, matrix.shape[0], block))
    found = partition_stream(blocks, matrix.shape, matrix.nnz, topology, Request())
    assert _same(found, partition_rows(matrix, topology, "streaming"))


def test_streaming_keeps_neighbours() -> None:
    matrix, topology = read_matrix("grid2d:32"), Topology.parse("uniform:4x1")
    node = topology.rank_to_node.tolist()
    moved = [
        gather_rows(crossing(matrix, partition_rows(matrix, topology, method), node))
        for method in ("streaming", "random")
    ]
    assert 3 * moved[0] < moved[1]


@pytest.mark.parametrize("suffix", ["txt", "npy"])
@pytest.mark.parametrize("columns", [False, True])
def test_given(suffix: str, columns: bool, tmp_path: Path) -> None:
    matrix = MATRICES["tall"]
    ranks = np.random.default_rng(0).integers(0, 4, 160 if columns else 120)
    path = tmp_path / f"ranks.{suffix}"
    if suffix == "npy":
        np.save(path, ranks)
    else:
        path.write_text("\n".join(map(str, ranks)))
    layouts = partition_rows(matrix, Topology.parse("uniform:2x2"), f"given:{path}")
    assert owners(layouts.rows) == ranks[:120].tolist()
    if columns:
        assert owners(layouts.cols) == ranks[120:].tolist()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0 1", "gives 2 ranks, but 81 are expected"),
        ("0 " * 80 + "x", "no list of ranks"),
        ("0 " * 80 + "1.5", "no list of ranks"),
        ("0 " * 80 + "4", "row 80 is given to rank 4, but ranks are 0 .. 3"),
        ("0 " * 80 + "-1", "row 80 is given to rank -1"),
    ],
)
def test_given_refused(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "ranks.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=says):
        partition_rows(MATRICES["mesh"], Topology.parse("uniform:2x2"), f"given:{path}")


def test_given_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none cannot be read: No such file"):
        partition_rows(MATRICES["mesh"], Topology.parse("uniform:2x2"), f"given:{tmp_path / 'none'}")


@pytest.mark.parametrize("method", LIBRARIES)
def test_missing_library(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=rf"'{method}' needs .*pip install 'sparsecomm\[partition\]'"):
        partition_rows(MATRICES["mesh"], Topology.parse("uniform:2x2"), method)


def test_a_function_is_a_partitioner() -> None:
    def odd_and_even(matrix: csr_array[Any], topology: Topology, request: Request) -> Layouts:
        layout = Layout.from_owners(np.arange(matrix.shape[0]) % topology.num_ranks, topology.num_ranks)
        return Layouts(layout, layout)

    matrix, topology = MATRICES["mesh"], Topology.parse("uniform:2x1")
    assert owners(partition_matrix(matrix, topology, odd_and_even, Request()).rows) == [i % 2 for i in range(81)]


def test_names_are_taken_once() -> None:
    with pytest.raises(ValueError, match="registered already"):
        register_partitioner("block", get_partitioner("block"))


def test_a_layout_for_another_matrix_is_refused() -> None:
    def wrong(matrix: csr_array[Any], topology: Topology, request: Request) -> Layouts:
        return Layouts(Layout.block(3, 2), Layout.block(3, 2))

    with pytest.raises(InputError, match=r"for a \(3, 3\) matrix"):
        partition_rows(MATRICES["mesh"], Topology.parse("uniform:2x1"), wrong)


@pytest.mark.parametrize("given", [{"side": "left"}, {"effort": 4}, {"iterations": 0}, {"balance": 0.9}, {"seed": -1}])
def test_requests_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        partition_rows(MATRICES["mesh"], Topology.parse("uniform:2x1"), **given)
