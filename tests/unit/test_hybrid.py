"""Stripes that are sent whole, against the rule worked out stripe by stripe."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from scipy.sparse import csr_array

from sparsecomm.collectives.hybrid import LEAST_SHARE, STRIPE
from sparsecomm.collectives.strategy import get_strategy
from sparsecomm.layout import Layout, Layouts
from sparsecomm.pattern import Remote
from sparsecomm.topology import Topology
from tests.planning_oracles import (
    MACHINES,
    Case,
    Copy,
    col_needs,
    hierarchical_copies,
    owner_list,
    plan_copies,
    random_case,
    volume_of_copies,
)

Stripes = dict[tuple[int, range], set[int]]  # (hub, rows of the stripe) -> rows that enter there


def _entering(case: Case, copies: set[Copy]) -> Stripes:
    last, offsets = case.machine.num_levels - 1, case.layouts.cols.offsets.tolist()
    found: Stripes = defaultdict(set)
    for copy in copies:
        if copy.level == last:
            first = offsets[copy.src] + (copy.row - offsets[copy.src]) // STRIPE * STRIPE
            found[copy.dst, range(first, min(first + STRIPE, offsets[copy.src + 1]))].add(copy.row)
    return found


def _whole(stripes: Stripes) -> Stripes:
    """Return the stripes to be sent whole: lower the share until they are as many rows as the rest."""
    for least in range(100, LEAST_SHARE - 1, -1):
        dense = {key: rows for key, rows in stripes.items() if 100 * len(rows) // len(key[1]) >= least}
        rest = sum(len(rows) for key, rows in stripes.items() if key not in dense)
        if sum(len(rows) for _, rows in dense) >= rest:
            return dense
    return dense


def _mixed(seed: int) -> csr_array:
    """Return a matrix of which some stripes of columns are full, some half full, and some sparse."""
    rng = np.random.default_rng(seed)
    density = np.repeat(rng.choice([0.0, 0.002, 0.03, 0.3], 20), 40)
    return csr_array((rng.random((800, 800)) < density).astype(np.int64))


CASES = [random_case(seed, tree) for seed, tree in enumerate([*MACHINES.values()] * 2)]
CASES += [
    Case(tree, _mixed(seed), Layouts(layout, layout))
    for seed, tree in enumerate(MACHINES.values())
    for layout in [Layout.block(800, tree.num_ranks)]
]


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_copies(case: Case) -> None:
    owners, last = owner_list(case.layouts.cols), case.machine.num_levels - 1
    plain = hierarchical_copies(case.machine, owners, col_needs(case))
    whole = _whole(_entering(case, plain))
    dense = {Copy(last, owners[row], hub, row) for hub, rows in whole for row in rows}
    remote, topology = Remote.of(case.matrix, case.layouts), case.machine.topology
    product = get_strategy("hybrid").build(remote, topology)
    product.verify(remote)
    first, second, *inner = map(set, plan_copies(product.gather))
    assert first == dense
    assert second == {copy for copy in plain if copy.level == last} - dense
    assert set().union(*inner) == {copy for copy in plain if copy.level < last}
    volume = get_strategy("hybrid").count(remote, topology)
    assert volume == product.volume()
    assert volume.rows.tolist() == volume_of_copies(case, plain | dense, set())["rows"]


def test_all_of_a_full_matrix_is_whole() -> None:
    """Every message is one block at both ends: rows that follow each other, and ghosts that do."""
    layout = Layout.block(300, 4)
    remote = Remote.of(csr_array(np.ones((300, 300))), Layouts(layout, layout))
    plan = get_strategy("hybrid").build(remote, Topology.parse("uniform:2x2")).gather
    whole, rest = plan.stages[:2]
    assert (whole.num_copies, rest.num_copies) == (300, 0)
    for slots in (whole.send, whole.recv):
        for src, dst in {*zip(whole.src.tolist(), whole.dst.tolist(), strict=True)}:
            assert (np.diff(slots[(whole.src == src) & (whole.dst == dst)]) == 1).all()


def test_sparse_stripes_are_not_filled_up() -> None:
    layout = Layout.block(1024, 4)
    matrix = csr_array((np.random.default_rng(1).random((1024, 1024)) < 3e-4).astype(np.int64))
    remote, topology = Remote.of(matrix, Layouts(layout, layout)), Topology.parse("uniform:2x2")
    hybrid, plain = (get_strategy(name).count(remote, topology) for name in ("hybrid", "hierarchical"))
    assert hybrid == plain
