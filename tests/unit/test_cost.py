"""Predicted times against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.sparse import csr_array

from sparsecomm.collectives.strategy import get_strategy, strategy_names
from sparsecomm.cost import CostModel, Estimate, imbalance
from sparsecomm.layout import Layout, Layouts
from sparsecomm.pattern import Remote
from sparsecomm.topology import Level, Topology
from sparsecomm.volume import Volume
from tests.planning_oracles import MACHINES, random_case

MACHINE = Topology(
    "by hand",
    (Level("node", 1e-6, 1e9), Level("network", 10e-6, 1e8, ports=2)),
    np.array([[0, 0, 1, 1], [0, 0, 0, 0]], dtype=np.int32),
)


def _volume(**changed: list[int]) -> Volume:
    zeros = np.zeros(2, dtype=np.int64)
    names = ("rows", "messages", "max_rank_rows", "max_rank_messages", "max_group_in", "max_group_out")
    fields = {name: np.array(changed[name]) if name in changed else zeros for name in names}
    return Volume(**fields, max_rank_buffer=0)


def _estimate(volume: Volume, width: int = 25, itemsize: int = 4, nnz: int = 0) -> Estimate:
    return CostModel(MACHINE, memory_Bps=1e9).estimate(volume, width, itemsize, nnz)


def test_formula_by_hand() -> None:
    """Rows of 25 float32 are 100 bytes: 0.1 us inside a node, 1 us through one port of the network."""
    volume = _volume(max_rank_rows=[40, 30], max_rank_messages=[2, 3], max_group_in=[40, 50], max_group_out=[35, 80])
    found = _estimate(volume, nnz=1000)
    # network: the node sends 80 rows through 2 ports, more than the 30 of its busiest rank through one.
    assert found.levels_s == pytest.approx((2 * 1e-6 + 40 * 0.1e-6, 3 * 10e-6 + 40 * 1e-6))
    # packing: 70 rows of 100 bytes are read and written at both ends, at 1 GB/s.
    assert found.pack_s == pytest.approx(4 * 70 * 100 / 1e9)
    # product: a nonzero reads a row, its value and its index.
    assert found.product_s == pytest.approx(1000 * (100 + 4 + 4) / 1e9)
    assert found.communication_s == pytest.approx(6e-6 + 70e-6 + 28e-6)
    assert found.total_s == pytest.approx(found.communication_s + found.product_s)


def test_busiest_rank_can_be_what_limits() -> None:
    volume = _volume(max_rank_rows=[0, 70], max_rank_messages=[0, 1], max_group_in=[0, 80], max_group_out=[0, 80])
    assert _estimate(volume).levels_s == pytest.approx((0.0, 10e-6 + 70e-6))


def test_nothing_costs_nothing() -> None:
    found = _estimate(_volume())
    assert found.levels_s == (0.0, 0.0)
    assert found.communication_s == found.total_s == 0.0


def test_empty_matrix_costs_nothing() -> None:
    layout = Layout.block(10, 4)
    remote = Remote.of(csr_array((10, 10)), Layouts(layout, layout))
    for name in set(strategy_names()) - {"allgather"}:  # it moves every row whether or not somebody needs it
        volume = get_strategy(name).count(remote, MACHINE)
        assert CostModel(MACHINE).estimate(volume, 64, 4).communication_s == 0.0


@pytest.mark.parametrize("tree", MACHINES.values(), ids=MACHINES)
def test_more_takes_longer(tree: object) -> None:
    case = random_case(24, tree)
    topology = case.machine.topology
    model = CostModel(topology)
    volume = get_strategy("hierarchical").count(Remote.of(case.matrix, case.layouts), topology)
    widths = [model.estimate(volume, width, 4, 100) for width in (1, 2, 16, 64, 1000)]
    for less, more in pairwise(widths):
        assert less.product_s < more.product_s
        if volume.rows.sum():
            assert less.communication_s < more.communication_s
        assert all(a <= b for a, b in zip(less.levels_s, more.levels_s, strict=True))
    assert model.estimate(volume, 64, 8).communication_s >= model.estimate(volume, 64, 4).communication_s
    slower = replace(topology, levels=tuple(replace(level, latency_s=1.0) for level in topology.levels))
    gap = CostModel(slower).estimate(volume, 64, 4).communication_s - model.estimate(volume, 64, 4).communication_s
    assert gap == pytest.approx(volume.max_rank_messages.sum(), abs=1e-4)


def test_imbalance() -> None:
    assert imbalance(np.array([1, 1, 4])) == 2.0
    assert imbalance(np.array([5])) == 1.0
    assert imbalance(np.array([0, 0])) == 1.0
    assert imbalance(np.empty(0, dtype=np.int64)) == 1.0
