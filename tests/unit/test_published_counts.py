"""Row counts that others computed by brute force: REFERENCE part I, 3.4 and 3.5."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from sparsecomm.collectives.strategy import get_strategy
from sparsecomm.io.matrix import read_matrix
from sparsecomm.layout import Layout, Layouts
from sparsecomm.pattern import Remote
from sparsecomm.table import Offline
from sparsecomm.topology import Topology
from sparsecomm.volume import Bounds, Volume, bounds_of

RADIX_LAYERS = [f"radixnet:16384:{layer}" for layer in range(10)]


@cache
def _matrix(spec: str) -> csr_array[Any]:
    return read_matrix(spec)


def _remote(spec: str, num_ranks: int) -> Remote:
    matrix = _matrix(spec)
    return Remote.of(matrix, Layouts(*(Layout.block(size, num_ranks) for size in matrix.shape)))


def _count(name: str, remote: Remote, topology: Topology) -> Volume:
    return get_strategy(name).count(remote, topology)


def _bounds(remote: Remote, topology: Topology) -> Bounds:
    return bounds_of(remote, topology, Offline(topology.num_ranks))


@pytest.mark.parametrize(
    ("file", "spec", "direct", "hierarchical", "reduce", "cover", "every_row", "lower"),
    [
        ("cnr-2000.npz", "uniform:8x6", 14_452, 13_436, 59_343, 5_732, 87_495, None),
        ("ego-twitter.npz", "uniform:8x6", 388_693, 221_236, 221_236, 83_040, 443_067, 45_667),
        ("soc-slashdot0902.npz", "uniform:4x8", 222_050, 111_708, 111_708, 73_366, 333_726, None),
        ("gene_go_all.npz", "uniform:4x8", 85_642, 25_284, 60_073, 19_060, 112_969, 16_607),
        ("xenon1.mtx.gz", "uniform:8x6", 16_660, 15_520, 15_520, 12_128, 34_283, None),
        ("c-62.mtx.gz", "uniform:4x4", 117_857, 68_451, 68_451, 61_322, 117_857, 41_717),
        ("cage10.mtx.gz", "uniform:4x4", 17_306, 10_989, 10_989, 8_452, 34_289, None),
        ("copter2.graph.gz", "uniform:4x8", 96_290, 60_907, 60_907, 29_540, 178_137, 26_802),
        ("mdual.graph.gz", "uniform:8x6", 539_881, 476_737, 476_737, 407_206, 633_939, 223_384),
        ("email-enron.npz", "nodes:3,3,1", 26_937, 21_153, 21_153, 8_274, 47_041, None),
    ],
)
def test_real_matrices(
    data_dir: Path,
    file: str,
    spec: str,
    direct: int,
    hierarchical: int,
    reduce: int,
    cover: int,
    every_row: int,
    lower: int | None,
) -> None:
    topology = Topology.parse(spec)
    remote = _remote(str(data_dir / f"matrices/{file}"), topology.num_ranks)
    volumes = {name: _count(name, remote, topology) for name in ("direct", "hierarchical", "reduce", "cover")}
    assert {name: volume.rows[-1] for name, volume in volumes.items()} == {
        "direct": direct,
        "hierarchical": hierarchical,
        "reduce": reduce,
        "cover": cover,
    }
    assert _count("cover", remote.transpose(Offline(topology.num_ranks)), topology).rows[-1] == cover
    assert volumes["direct"].rows.sum() == every_row
    bounds = _bounds(remote, topology)
    assert bounds.two_party_minimum == cover
    if lower is not None:
        assert bounds.network == lower


@pytest.mark.parametrize(
    ("file", "spec", "most"),
    [
        ("ego-twitter.npz", "uniform:8x6", 69_746),
        ("mdual.graph.gz", "uniform:8x6", 385_758),
        ("copter2.graph.gz", "uniform:4x8", 27_926),
        ("gene_go_all.npz", "uniform:4x8", 18_233),
        ("c-62.mtx.gz", "uniform:4x4", 61_322),
    ],
)
def test_relay(data_dir: Path, file: str, spec: str, most: int) -> None:
    """No more rows than a greedy pass over the cover left in the reference."""
    topology = Topology.parse(spec)
    remote = _remote(str(data_dir / f"matrices/{file}"), topology.num_ranks)
    assert _bounds(remote, topology).network <= _count("relay", remote, topology).rows[-1] <= most


@pytest.mark.parametrize(
    ("file", "direct", "hierarchical", "cover"),
    [
        ("ego-twitter.npz", 73_250, 48_398, 16_581),
        ("soc-slashdot0902.npz", 66_876, 49_055, 23_737),
        ("email-enron.npz", 25_014, 20_634, 5_395),
    ],
)
def test_rows_into_the_busiest_node(data_dir: Path, file: str, direct: int, hierarchical: int, cover: int) -> None:
    topology = Topology.parse("uniform:4x2")
    remote = _remote(str(data_dir / f"matrices/{file}"), 8)
    assert _count("direct", remote, topology).max_group_in[-1] == direct
    assert _count("hierarchical", remote, topology).max_group_in[-1] == hierarchical
    assert _count("cover", remote, topology).max_group_in[-1] == cover


@pytest.mark.parametrize(
    ("matrix", "nodes", "direct", "hierarchical"),
    [
        ("radixnet:1024:0", 2, (6144, 3072, 2048), (1024, 2048, 8192)),
        ("radixnet:1024:0", 4, (12568, 2097, 1079), (3072, 4096, 8835)),
        ("radixnet:1024:0", 8, (14996, 1074, 58), (7168, 8192, 3143)),
        ("radixnet:16384:9", 8, (458732, 32768, 16404), (114688, 131072, 264864)),
        ("grid2d:96", 2, (192, 384, 1536), (192, 576, 2112)),
    ],
)
def test_levels_of_summit(
    matrix: str, nodes: int, direct: tuple[int, int, int], hierarchical: tuple[int, int, int]
) -> None:
    """Outermost level first, as in the table: between nodes, between sockets, inside sockets."""
    topology = Topology.parse(f"summit:{nodes}")
    remote = _remote(matrix, topology.num_ranks)
    assert _count("direct", remote, topology).rows[::-1].tolist() == list(direct)
    assert _count("hierarchical", remote, topology).rows[::-1].tolist() == list(hierarchical)


@pytest.mark.parametrize(
    ("nodes", "direct", "hierarchical"),
    [
        (2, (983040, 491520, 327680), (163840, 327680, 1310720)),
        (4, (2211510, 368587, 204799), (491520, 655360, 1639661)),
        (8, (2866424, 204746, 41022), (1146880, 1310720, 671645)),
        (16, (3316055, 32959, 24554), (2457200, 544139, 743155)),
    ],
)
def test_ten_layers_on_summit(nodes: int, direct: tuple[int, int, int], hierarchical: tuple[int, int, int]) -> None:
    topology = Topology.parse(f"summit:{nodes}")
    for name, expected in (("direct", direct), ("hierarchical", hierarchical)):
        rows = sum(_count(name, remote, topology).rows for remote in _layers(topology.num_ranks))
        assert rows[::-1].tolist() == list(expected)


@pytest.mark.parametrize(
    ("spec", "direct", "hierarchical", "reduce", "cover", "every_row"),
    [
        ("uniform:2x6", 983_040, 163_840, 163_840, 163_800, 1_802_240),
        ("uniform:8x6", 2_866_424, 1_146_880, 1_146_880, 1_145_629, 3_112_192),
    ],
)
def test_ten_layers(spec: str, direct: int, hierarchical: int, reduce: int, cover: int, every_row: int) -> None:
    topology = Topology.parse(spec)
    remotes = list(_layers(topology.num_ranks))
    volumes = {
        name: sum(_count(name, remote, topology).rows for remote in remotes)
        for name in ("direct", "hierarchical", "reduce", "cover")
    }
    assert [rows[-1] for rows in volumes.values()] == [direct, hierarchical, reduce, cover]
    assert volumes["direct"].sum() == every_row
    assert sum(_bounds(remote, topology).two_party_minimum for remote in remotes) == cover


@pytest.mark.parametrize(("nodes", "rows"), [(2, 32_736), (4, 49_088), (8, 65_408)])
def test_residue_classes(nodes: int, rows: int) -> None:
    """Rows and columns grouped by residue modulo N / 16: of the rows that cross, each has one user."""
    topology = Topology.parse(f"uniform:{nodes}x6")
    owners = (np.arange(16384) % 1024) * topology.num_ranks // 1024
    layout = Layout.from_owners(owners, topology.num_ranks)
    order = layout.new_to_old()
    direct = hierarchical = 0
    for number, spec in enumerate(RADIX_LAYERS):
        remote = Remote.of(_matrix(spec)[order][:, order], Layouts(layout, layout))
        direct += int(_count("direct", remote, topology).rows[-1])
        hierarchical += int(_count("hierarchical", remote, topology).rows[-1])
        if number == 0 and nodes == 2:
            assert direct == hierarchical == 32
    assert (direct, hierarchical) == (rows, rows)


def _layers(num_ranks: int) -> Iterator[Remote]:
    return (_remote(spec, num_ranks) for spec in RADIX_LAYERS)
