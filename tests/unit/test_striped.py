"""Striping: the rows between two nodes spread over their ranks, none more and none twice."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from scipy.sparse import csr_array

from sparsecomm.collectives.strategy import get_strategy
from sparsecomm.io.matrix import read_matrix
from sparsecomm.layout import Layout, Layouts
from sparsecomm.pattern import Remote
from sparsecomm.plan import Plan
from sparsecomm.topology import Topology, make_tree
from tests.planning_oracles import MACHINES, Case, Copy, owner_list, plan_copies, random_case

pytestmark = pytest.mark.usefixtures("small_parts")

CASES = [random_case(seed, tree) for seed, tree in enumerate([*MACHINES.values()] * 4, start=300)]
EVERY = pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))


def _quick(topology: Topology, least_rows: int = 1) -> Topology:
    """Return the same tree with a network whose messages are worth their latency from `least_rows` rows of 256 B."""
    *inner, network = topology.levels
    link = type(network)(network.name, least_rows * 256e-9, 1e9)
    return make_tree(topology.name, (*inner, link), list(topology.groups[:-1]))


def _crossings(plan: Plan) -> list[Copy]:
    """Return the copies of the network stage, and check that it is the one between the stages of the nodes."""
    levels = [stage.level for stage in plan.stages]
    inner = list(range(plan.topology.num_levels - 2, -1, -1))
    assert levels == [*inner, plan.topology.num_levels - 1, *inner]
    return plan_copies(plan)[len(inner)]


def _by_pair(plan: Plan, side: str) -> dict[tuple[int, int], Counter[int]]:
    """Return for each pair of nodes the rows that each lane sends or receives."""
    node = plan.topology.rank_to_node.tolist()
    found: dict[tuple[int, int], Counter[int]] = defaultdict(Counter)
    for copy in _crossings(plan):
        found[node[copy.src], node[copy.dst]][getattr(copy, side)] += 1
    return found


@EVERY
def test_same_rows_cross_as_in_hierarchical(case: Case) -> None:
    remote, topology = Remote.of(case.matrix, case.layouts), case.machine.topology
    for plain, striped in (("hierarchical", "striped"), ("cover", "cover-striped")):
        one, other = (get_strategy(name).build(remote, topology) for name in (plain, striped))
        other.verify(remote)
        assert other.volume() == get_strategy(striped).count(remote, topology)
        assert other.multiplier.tolist() == one.multiplier.tolist()
        assert other.volume().rows[-1] == one.volume().rows[-1]
        node, last = topology.rank_to_node.tolist(), topology.num_levels - 1
        into = {(copy.row, node[copy.dst]) for stage in plan_copies(one.gather) for copy in stage if copy.level == last}
        assert {(copy.row, node[copy.dst]) for copy in _crossings(other.gather)} == into


@pytest.mark.parametrize("spec", ["uniform:2x2", "uniform:3x4", "summit:2"])
@pytest.mark.parametrize("least_rows", [1, 7])
@pytest.mark.parametrize("seed", range(5))
def test_even_split(spec: str, least_rows: int, seed: int) -> None:
    """As many lanes as carry `least_rows` each, alike but for one row; owners keep what their share has room for."""
    rng = np.random.default_rng(seed)
    topology = _quick(Topology.parse(spec), least_rows)
    matrix = csr_array((rng.random((90, 90)) < rng.choice([0.02, 0.3])).astype(np.int64))
    layout = Layout(np.concatenate([[0], np.sort(rng.integers(0, 91, topology.num_ranks - 1)), [90]]))
    plan = get_strategy("striped").build(Remote.of(matrix, Layouts(layout, layout)), topology).gather
    owners, size = owner_list(layout), topology.num_ranks // topology.num_nodes
    node = topology.rank_to_node.tolist()
    for side in ("src", "dst"):
        for pair, lanes in _by_pair(plan, side).items():
            total = lanes.total()
            assert len(lanes) == min(max(total // least_rows, 1), size)
            assert max(lanes.values()) - min(lanes.values()) <= 1, pair
    crossings = _crossings(plan)
    for pair, lanes in _by_pair(plan, "src").items():
        mine = [copy for copy in crossings if (node[copy.src], node[copy.dst]) == pair]
        assert {(copy.src % size, copy.dst % size) for copy in mine} == {(lane % size,) * 2 for lane in lanes}
        stayed = Counter(copy.src for copy in mine if copy.src == owners[copy.row])
        owned = Counter(owners[copy.row] for copy in mine)
        assert all(stayed[lane] == min(owned[lane], count) for lane, count in lanes.items())


def test_nodes_of_different_sizes() -> None:
    """A large node and a small one use as many lanes as the larger has."""
    topology = _quick(Topology.parse("nodes:3,1"))
    layout = Layout(np.array([0, 6, 6, 6, 12]))
    matrix = csr_array(np.kron([[0, 1], [1, 0]], np.ones((6, 6), dtype=np.int64)))
    plan = get_strategy("striped").build(Remote.of(matrix, Layouts(layout, layout)), topology).gather
    assert _by_pair(plan, "src") == {(0, 1): {0: 2, 1: 2, 2: 2}, (1, 0): {3: 6}}
    assert _by_pair(plan, "dst") == {(0, 1): {3: 6}, (1, 0): {0: 2, 1: 2, 2: 2}}


@pytest.mark.parametrize("spec", ["uniform:4x4", "uniform:8x8"])
def test_busiest_lane_of_a_power_law_graph(spec: str) -> None:
    """At least 30 % fewer rows than where each lane sends what its rank owns."""
    topology, matrix = Topology.parse(spec), read_matrix("rmat:16:8")
    layout = Layout.block(matrix.shape[0], topology.num_ranks)
    remote = Remote.of(matrix, Layouts(layout, layout))
    for plain, striped in (("hierarchical", "striped"), ("cover", "cover-striped")):
        one, other = (get_strategy(name).count(remote, topology) for name in (plain, striped))
        assert one.rows[-1] == other.rows[-1]
        assert other.max_rank_rows[-1] <= 0.7 * one.max_rank_rows[-1]
        assert other.rows[0] > one.rows[0]
