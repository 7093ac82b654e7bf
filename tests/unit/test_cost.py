"""Predicted times against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from sparsecomm.collectives.strategies import candidates, choose
from sparsecomm.collectives.strategy import get_strategy, strategy_names
from sparsecomm.cost import CostModel, Estimate, Link, imbalance
from sparsecomm.errors import InputError
from sparsecomm.io.matrix import read_matrix
from sparsecomm.layout import Layout, Layouts
from sparsecomm.pattern import Remote
from sparsecomm.topology import Device, Level, Topology
from sparsecomm.volume import Volume
from tests.planning_oracles import MACHINES, random_case

MACHINE = Topology(
    "by hand",
    (Level("node", 1e-6, 1e9), Level("network", 10e-6, 1e8, ports=2)),
    np.array([[0, 0, 1, 1], [0, 0, 0, 0]], dtype=np.int32),
)


def _volume(num_stages: int = 0, **changed: list[int]) -> Volume:
    zeros = np.zeros(2, dtype=np.int64)
    names = ("rows", "messages", "max_rank_rows", "max_rank_messages", "max_group_in", "max_group_out")
    fields = {name: np.array(changed[name]) if name in changed else zeros for name in names}
    return Volume(**fields, max_rank_buffer=0, num_stages=num_stages)


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


NAMES = ["node", "network"]
BUSY = _volume(3, max_rank_rows=[40, 30], max_rank_messages=[2, 3], max_group_in=[40, 50], max_group_out=[35, 80])


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_parts_add_up(depth: int) -> None:
    gpus = replace(MACHINE, device=Device("by hand", 1e9, launch_s=7e-6, host_Bps=1e9))
    found = CostModel(gpus, depth=depth).estimate(BUSY, 25, 4, 1000)
    parts = found.parts(NAMES)
    assert sum(parts.values()) - found.hidden_s == pytest.approx(found.total_s)
    assert parts[found.limit(NAMES)] == max(parts.values())
    assert parts["network node port"] == found.levels[1].transfer_s > 0 == parts["network rank port"]
    assert parts["launch"] == pytest.approx(depth * (2 * 3 + 1) * 7e-6)
    assert found.communication_s == pytest.approx(found.total_s - found.product_s)


def test_twice_the_caps_halve_the_bandwidth_term() -> None:
    """Twice the rate of a port is twice the cap of a rank and, with as many ports, of a node."""
    twice = replace(MACHINE.levels[1], bandwidth_Bps=2 * MACHINE.levels[1].bandwidth_Bps)
    faster = replace(MACHINE, levels=(MACHINE.levels[0], twice))
    for rows in ([0, 70], [0, 30]):  # a rank limits, a node limits
        volume = replace(BUSY, max_rank_rows=np.array(rows))
        before, after = (CostModel(machine).estimate(volume, 25, 4, 1000) for machine in (MACHINE, faster))
        assert after.levels[1].transfer_s == before.levels[1].transfer_s / 2
        assert after.levels[1].latency_s == before.levels[1].latency_s
        assert after.levels[0] == before.levels[0]
        assert (after.pack_s, after.product_s) == (before.pack_s, before.product_s)


def test_more_ports_help_the_node_only() -> None:
    more = replace(MACHINE, levels=(MACHINE.levels[0], replace(MACHINE.levels[1], ports=8)))
    found = CostModel(more).estimate(BUSY, 25, 4).levels[1]
    assert (found.port, found.transfer_s) == ("rank", pytest.approx(30e-6))  # 10 rows a port of the node's 80


def test_staging_where_it_is_faster() -> None:
    """30 rows of the rank are 3 kB: 3 us down and 3 us up at 1 GB/s; 80 of the node 40 us on two ports."""
    network = MACHINE.levels[1]
    device = Device("by hand", 1e9, host_Bps=1e9)

    def level(direct_Bps: float) -> tuple[float, float]:
        levels = (MACHINE.levels[0], replace(network, direct_Bps=direct_Bps))
        found = CostModel(replace(MACHINE, levels=levels, device=device)).estimate(BUSY, 25, 4).levels[1]
        return found.transfer_s, found.staging_s

    assert level(0.5e8) == pytest.approx((40e-6, 6e-6))  # straight it would take 80 us
    assert level(0.9e8) == pytest.approx((40e-6 / 0.9, 0.0))
    assert level(0.0) == pytest.approx((40e-6, 0.0))


def test_no_staging_without_a_way_to_the_host() -> None:
    levels = (MACHINE.levels[0], replace(MACHINE.levels[1], direct_Bps=0.5e8))
    found = CostModel(replace(MACHINE, levels=levels)).estimate(BUSY, 25, 4).levels[1]
    assert (found.transfer_s, found.staging_s) == pytest.approx((80e-6, 0.0))


@pytest.mark.parametrize("depth", [1, 3, 10])
def test_pipelining_by_the_formula(depth: int) -> None:
    whole = CostModel(MACHINE).estimate(BUSY, 2500, 4, 1000)
    steps = [*(level.moving_s for level in whole.levels), whole.pack_s, whole.product_s]
    alpha = sum(level.latency_s for level in whole.levels)
    expected = sum(steps) / depth + (depth - 1) / depth * max(steps) + depth * alpha
    assert CostModel(MACHINE, depth=depth).estimate(BUSY, 2500, 4, 1000).total_s == pytest.approx(expected)
    best = whole.best_depth()
    assert best > 1
    assert whole.pipelined(best).total_s <= min(whole.pipelined(m).total_s for m in (1, best - 1, best + 1)) * (
        1 + 1e-9
    )


def test_measured_links_replace_those_of_the_topology() -> None:
    links = (Link(1e-6, 1e9, 1e9), Link(20e-6, 2e8, 3e8))
    found = CostModel(MACHINE, links=links, product=lambda nnz, rows, row_bytes, itemsize: nnz * 1e-9 + rows * 1e-7)
    level = found.estimate(BUSY, 25, 4).levels[1]
    assert (level.latency_s, level.transfer_s) == pytest.approx((60e-6, 8000 / 3e8))
    assert found.product_s(1000, 50, 100, 4) == pytest.approx(1e-6 + 5e-6)
    assert found.estimate(BUSY, 25, 4, 1000, mean_rank_rows=20).product_s == pytest.approx(1e-6 + 2e-6)
    with pytest.raises(InputError, match="1 links for the 2 levels"):
        CostModel(MACHINE, links=links[:1])
    with pytest.raises(InputError, match="depth 0"):
        CostModel(MACHINE, depth=0)


def test_stages_in_which_something_moves() -> None:
    matrix = csr_array(np.ones((8, 8)))
    layout = Layout.block(8, 4)
    remote = Remote.of(matrix, Layouts(layout, layout))
    stages = {name: get_strategy(name).build(remote, MACHINE) for name in ("direct", "hierarchical", "reduce")}
    for name, product in stages.items():
        used = sum(stage.num_copies > 0 for plan in (product.gather, product.scatter) for stage in plan.stages)
        assert get_strategy(name).count(remote, MACHINE).num_stages == product.volume().num_stages == used > 0


def test_own_nonzeros_while_rows_travel() -> None:
    moving = sum(level.moving_s for level in CostModel(MACHINE).estimate(BUSY, 25, 4).levels)
    apart = CostModel(MACHINE, memory_Bps=1e9).estimate(BUSY, 25, 4, 1000, 900)
    for own, hidden in ((100, 100 * 108e-9), (900, moving)):
        found = CostModel(MACHINE, memory_Bps=1e9, overlap=True).estimate(BUSY, 25, 4, 1000, own)
        assert found.hidden_s == pytest.approx(hidden)
        assert found.total_s == pytest.approx(apart.total_s - hidden)
    assert apart.hidden_s == 0.0


def test_ranks_that_crowd_each_other() -> None:
    """The fullest rank alone, or all of them together: whichever takes longer."""
    model = CostModel(MACHINE, memory_Bps=1e9, crowding=3.0)
    volume = replace(BUSY, rows=np.array([100, 60]))  # 40 a rank on average, 70 on the busiest
    for mean, product in ((200, 1000), (500, 1500)):
        found = model.estimate(volume, 25, 4, 1000, mean_rank_nnz=mean)
        assert found.product_s == pytest.approx(product * 108e-9)
        assert found.pack_s == pytest.approx(4 * 3 * 40 * 100 / 1e9)
    assert CostModel(MACHINE, memory_Bps=1e9).estimate(volume, 25, 4).pack_s == pytest.approx(4 * 70 * 100 / 1e9)


def test_phases_take_turns() -> None:
    """Each phase waits for its own busiest node and rank, and own nonzeros hide behind the first alone."""
    first = _volume(max_rank_rows=[10, 30], max_rank_messages=[1, 3], max_group_in=[10, 40], max_group_out=[10, 60])
    then = _volume(max_rank_rows=[20, 50], max_rank_messages=[1, 2], max_group_in=[20, 70], max_group_out=[20, 30])
    whole = _volume(rows=[60, 160], max_rank_rows=[30, 60], max_rank_messages=[2, 4], max_group_in=[30, 90])
    model = CostModel(MACHINE, memory_Bps=1e9, overlap=True)
    found = model.estimate(replace(whole, phases=(first, then)), 25, 4, 1000, 900)
    alone = [model.estimate(phase, 25, 4) for phase in (first, then)]
    assert found.levels_s == pytest.approx(np.sum([one.levels_s for one in alone], axis=0))
    assert found.levels_s[1] == pytest.approx(5 * 10e-6 + 30e-6 + 50e-6)  # nodes send 60 rows, then a rank has 50
    assert found.levels[1].port == "rank"
    assert found.pack_s == pytest.approx(4 * (40 + 70) * 100 / 1e9)
    assert found.hidden_s == pytest.approx(1e-6 + 30e-6)
    assert found.total_s > model.estimate(whole, 25, 4, 1000, 900).total_s


def test_relay_waits_where_third_ranks_multiply(data_dir: Path) -> None:
    """On a power-law graph `relay` sends less than `cover`, but its busiest nodes have theirs one after the other."""
    topology = Topology.parse("uniform:4x2")
    matrix = read_matrix(str(data_dir / "matrices/email-enron.npz"))
    layout = Layout.block(matrix.shape[0], topology.num_ranks)
    remote = Remote.of(matrix, Layouts(layout, layout))
    found = candidates(remote, topology, names=("direct", "cover", "relay"))
    cover, relay = found["cover"].volume, found["relay"].volume
    assert relay.rows[-1] < cover.rows[-1]
    assert cover.phases == ()
    gather, scatter = relay.phases
    assert (gather.rows + scatter.rows).tolist() == relay.rows.tolist()
    most = [max(int(phase.max_group_in[-1]), int(phase.max_group_out[-1])) for phase in relay.phases]
    assert sum(most) > max(int(cover.max_group_in[-1]), int(cover.max_group_out[-1]))
    assert choose(found).name == "cover"
