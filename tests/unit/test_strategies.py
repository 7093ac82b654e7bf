"""Strategies on random patterns, against a schedule worked out row by row."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from sparsecomm.collectives import strategy
from sparsecomm.collectives.strategies import candidates, check_ranks, choose, make_product, passed_over
from sparsecomm.collectives.strategy import Strategy, get_strategy, register_strategy, strategy_names, up_to
from sparsecomm.cost import CostModel
from sparsecomm.errors import InputError
from sparsecomm.layout import Layout, Layouts
from sparsecomm.pattern import Remote
from sparsecomm.plan import Plan
from sparsecomm.table import Offline
from sparsecomm.topology import Topology
from sparsecomm.volume import Volume
from tests.planning_oracles import (
    MACHINES,
    Case,
    Copy,
    col_needs,
    covered_by_row,
    direct_copies,
    hierarchical_copies,
    machine,
    needs_of,
    owner_list,
    plan_copies,
    random_case,
    relayed,
    remote_nonzeros,
    run_product,
    volume_of_copies,
)

pytestmark = pytest.mark.usefixtures("small_parts")

STRATEGIES = ("direct", "hierarchical", "reduce", "cover", "relay", "direct-cover", "rank-cover", "allgather")
CASES = [random_case(seed, tree) for seed, tree in enumerate([*MACHINES.values()] * 4)]
EVERY = pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
EACH = pytest.mark.parametrize("name", STRATEGIES)


def _multipliers(name: str, case: Case) -> list[int]:
    """Return the rank that should multiply each remote nonzero."""
    if name == "relay":
        return relayed(case)
    remote = remote_nonzeros(case)
    by_row = {
        "direct": [False] * len(remote),
        "hierarchical": [False] * len(remote),
        "allgather": [False] * len(remote),
        "reduce": [True] * len(remote),
        "cover": covered_by_row(case, case.machine.groups[-1]),
        "direct-cover": covered_by_row(case, range(case.machine.num_ranks)),
        "rank-cover": covered_by_row(case, range(case.machine.num_ranks)),
    }[name]
    return [src if row else dst for row, (_, _, dst, src) in zip(by_row, remote, strict=True)]


def _expected(name: str, case: Case) -> tuple[set[Copy], set[Copy]]:
    """Return the copies of the gather plan and, in forward direction, of the scatter plan."""
    make = direct_copies if name.startswith("direct") else hierarchical_copies
    cols, rows = needs_of(case, _multipliers(name, case))
    if name == "allgather":
        ranks = set(range(case.machine.num_ranks))
        cols = {col: ranks - {owner} for col, owner in enumerate(owner_list(case.layouts.cols))}
    return (
        make(case.machine, owner_list(case.layouts.cols), cols),
        make(case.machine, owner_list(case.layouts.rows), rows),
    )


def _fields(volume: Volume) -> dict[str, Any]:
    fields = {name: np.asarray(getattr(volume, name)).tolist() for name in volume.__slots__ if name != "phases"}
    phases = [_fields(phase) for phase in volume.phases]
    for phase in phases:
        del phase["max_rank_buffer"]  # of the plan alone
    return fields | {"phases": phases}


def _copies(plan: Plan) -> set[Copy]:
    stages = plan_copies(plan)
    assert sum(map(len, stages)) == len(set().union(*stages))
    return set().union(*stages)


@EACH
@EVERY
def test_copies_volume_and_result(name: str, case: Case) -> None:
    topology, remote = case.machine.topology, Remote.of(case.matrix, case.layouts)
    product = get_strategy(name).build(remote, topology)
    product.verify(remote)
    assert product.multiplier.tolist() == _multipliers(name, case)
    gather, scatter = _expected(name, case)
    assert (_copies(product.gather), _copies(product.scatter)) == (gather, scatter)
    volume = get_strategy(name).count(remote, topology)
    third = [by not in ends[2:] for by, ends in zip(_multipliers(name, case), remote_nonzeros(case), strict=True)]
    assert product.relays == any(third)
    expected = volume_of_copies(case, gather, scatter, in_turn=any(third))
    assert _fields(product.volume()) == _fields(volume) == expected
    assert product.volume() == volume
    assert int(product.memory(1, np.uint8).max()) == volume.max_rank_buffer
    x = {row: int(value) for row, value in enumerate(np.random.default_rng(7).integers(-9, 10, case.matrix.shape[1]))}
    y = (case.matrix.toarray() @ np.array(list(x.values()), dtype=np.int64)).tolist()
    assert run_product(product, case, x) == dict(enumerate(y))


@EVERY
def test_reduce_is_hierarchical_of_the_transpose(case: Case) -> None:
    topology = case.machine.topology
    turned = Remote.of(csr_array(case.matrix.T), Layouts(case.layouts.cols, case.layouts.rows))
    reduce = get_strategy("reduce").build(Remote.of(case.matrix, case.layouts), topology)
    hierarchical = get_strategy("hierarchical").build(turned, topology)
    assert reduce.scatter.fingerprint() == hierarchical.gather.fingerprint()
    assert plan_copies(reduce.scatter) == plan_copies(hierarchical.gather)
    assert reduce.volume().rows.tolist() == hierarchical.volume().rows.tolist()


@EVERY
def test_hierarchical_row_counts_by_formula(case: Case) -> None:
    """The network gets one copy of a row for each foreign node that needs it: V_L1 of REFERENCE 3.3."""
    tree, owners = case.machine, owner_list(case.layouts.cols)
    volume = get_strategy("hierarchical").count(Remote.of(case.matrix, case.layouts), tree.topology)
    nodes = tree.groups[-1]
    crossing = {
        (row, nodes[p]) for row, users in col_needs(case).items() for p in users if nodes[p] != nodes[owners[row]]
    }
    assert volume.rows[-1] == len(crossing)
    used = sum(len(users) for users in col_needs(case).values())
    assert volume.rows.sum() >= used
    direct = get_strategy("direct").count(Remote.of(case.matrix, case.layouts), tree.topology)
    assert direct.rows.sum() == used
    assert volume.rows[-1] <= direct.rows[-1]


@pytest.mark.parametrize("seed", range(4))
def test_levels_of_summit_by_formula(seed: int) -> None:
    """L2 and L3 of REFERENCE 3.3, by local socket and local rank; needs sockets and nodes of equal size."""
    tree = MACHINES["summit"]
    rng = np.random.default_rng(seed)
    layout = Layout.block(60, 12)
    matrix = csr_array((rng.random((60, 60)) < 0.2).astype(np.int64))
    case = Case(tree, matrix, Layouts(layout, layout))
    owners = owner_list(layout)
    dense = matrix.toarray()
    used = [{int(c) for r in layout.own_rows(p) for c in np.flatnonzero(dense[r])} for p in range(12)]
    by_socket = [set().union(*used[3 * s : 3 * s + 3]) for s in range(4)]
    # A row that enters a node stops in the socket with the owner's local number on its way to the other one.
    level_2 = sum((owners[c] // 3) % 2 != s % 2 for s in range(4) for c in by_socket[s])
    level_3 = sum(owners[c] % 3 != p % 3 for p in range(12) for c in used[p])
    rows = get_strategy("hierarchical").count(Remote.of(matrix, case.layouts), tree.topology).rows
    assert rows[:2].tolist() == [level_3, level_2]


@pytest.mark.parametrize("name", [name for name in strategy_names() if name != "allgather"])
@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0), (3, 3)])
def test_nothing_to_move(name: str, shape: tuple[int, int]) -> None:
    layouts = Layouts(Layout.block(shape[0], 4), Layout.block(shape[1], 4))
    remote, topology = Remote.of(csr_array(shape, dtype=np.float32), layouts), Topology.parse("uniform:2x2")
    product = make_product(remote, topology, name)
    assert product.volume().rows.tolist() == product.volume().messages.tolist() == [0, 0]
    assert product.multiplier.size == 0
    assert product.gather.num_copies == product.scatter.num_copies == 0
    assert "0" in product.describe()


@pytest.mark.parametrize("name", strategy_names())
def test_one_rank(name: str) -> None:
    layout = Layout.block(6, 1)
    remote = Remote.of(csr_array(np.ones((6, 6))), Layouts(layout, layout))
    product = make_product(remote, Topology.parse("uniform:1x1"), name)
    assert product.volume().rows.sum() == 0
    assert remote.own_nnz.tolist() == [36]


@EACH
def test_canonical_order(name: str) -> None:
    """Copies by (dst, src, row), ghosts ascending, staging by (stage, row), on a case that has all of these."""
    tree = MACHINES["uneven sockets"]
    matrix = csr_array((np.random.default_rng(1).random((40, 40)) < 0.3).astype(np.int64))
    layout = Layout.block(40, tree.num_ranks)
    product = get_strategy(name).build(Remote.of(matrix, Layouts(layout, layout)), tree.topology)
    plan = product.scatter if name == "reduce" else product.gather
    rows = plan_copies(plan)
    assert [stage.level for stage in plan.stages] == [2, 1, 0]
    arrives = {}
    for number, (stage, copies) in enumerate(zip(plan.stages, rows, strict=True)):
        assert copies == sorted(copies, key=lambda copy: (copy.dst, copy.src, copy.row))
        arrives |= {
            (copy.dst, slot): (number, copy.row) for copy, slot in zip(copies, stage.recv.tolist(), strict=True)
        }
    for p in range(tree.num_ranks):
        first = sum(len(part) for part in (layout.own_rows(p), range(*plan.ghost_indptr[p : p + 2])))
        transit = [arrives[p, first + i] for i in range(int(plan.staging_indptr[p + 1] - plan.staging_indptr[p]))]
        assert transit == sorted(transit)
    if not name.startswith(("direct", "allgather")):  # nothing is in transit where all rows are for all
        assert plan.staging_rows.size > 0


def test_registry() -> None:
    assert set(strategy_names()) >= set(STRATEGIES)
    direct = get_strategy("direct")
    assert get_strategy(direct) is direct
    with pytest.raises(ValueError, match="direct"):
        register_strategy(Strategy("direct", direct.schedule))
    with pytest.raises(InputError) as error:
        get_strategy("sideways")
    for word in ("sideways", "auto", *STRATEGIES):
        assert word in str(error.value)


def test_order_does_not_depend_on_what_was_imported_first() -> None:
    code = (
        "import sparsecomm.collectives.{}; from sparsecomm.collectives.strategy import strategy_names as n; print(n())"
    )
    said = {
        subprocess.run([sys.executable, "-c", code.format(first)], capture_output=True, text=True, check=True).stdout
        for first in ("strategy", "reduce")
    }
    assert len(said) == 1, said


@EVERY
def test_auto_is_the_least_predicted_unless_it_gains_little(case: Case) -> None:
    topology, remote = case.machine.topology, Remote.of(case.matrix, case.layouts)
    found = candidates(remote, topology, width=32, itemsize=8)
    predicted = {
        name: CostModel(topology).estimate(get_strategy(name).count(remote, topology), 32, 8).total_s for name in found
    }
    assert {name: candidate.estimate.total_s for name, candidate in found.items()} == predicted
    least = min(predicted.values())
    chosen = choose(found).name
    fastest = next(name for name in predicted if predicted[name] == least)
    assert chosen == ("direct" if least > 0.9 * predicted["direct"] else fastest)
    del found["direct"]
    least = min(predicted[name] for name in found)
    assert choose(found).name == next(name for name in found if predicted[name] == least)
    assert make_product(remote, topology, width=32, itemsize=8).strategy == chosen
    assert choose(found, "reduce").name == "reduce"
    with pytest.raises(InputError, match="sideways"):
        choose(found, "sideways")


def test_auto_takes_the_first_of_equals() -> None:
    layout = Layout.block(4, 2)
    remote = Remote.of(csr_array(np.eye(4)), Layouts(layout, layout))
    assert {make_product(remote, Topology.parse("uniform:2x1")).strategy for _ in range(3)} == {strategy_names()[0]}


def test_auto_depends_on_the_machine() -> None:
    """A row that a whole node needs crosses once with hierarchical; a tall matrix is reduced before it crosses."""
    wide = csr_array(np.ones((60, 60)))
    layout = Layout.block(60, 12)
    remote = Remote.of(wide, Layouts(layout, layout))
    found = candidates(remote, machine([p // 6 for p in range(12)]).topology, width=1024)
    assert found["hierarchical"].volume.rows[-1] * 6 == found["direct"].volume.rows[-1]
    column = csr_array(np.eye(1, 12, 11).repeat(60, axis=0))
    few = Remote.of(column.T.tocsr(), Layouts(Layout.block(12, 12), layout))
    assert make_product(few, Topology.parse("uniform:2x6"), width=1024).strategy == "reduce"


def test_what_was_counted_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """The schedule of the strategy that is chosen is made once; it is not kept after it was built."""
    case, made, make = CASES[2], [], Strategy.make
    topology, remote = case.machine.topology, Remote.of(case.matrix, case.layouts)
    chosen = choose(candidates(remote, topology))
    expected = chosen.build(Remote.of(case.matrix, case.layouts), topology).fingerprint()

    def noted(self: Strategy, *given: Any) -> Any:
        made.append(self.name)
        return make(self, *given)

    monkeypatch.setattr(Strategy, "make", noted)
    assert (chosen.build(remote, topology).fingerprint(), made) == (expected, [])
    assert (chosen.build(remote, topology).fingerprint(), made) == (expected, [chosen.name])
    candidates(remote, topology, asked="reduce")
    made.clear()
    get_strategy("reduce").build(remote, topology)
    assert made == []


def test_passed_over_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout.block(4, 2)
    remote = Remote.of(csr_array(np.ones((4, 4))), Layouts(layout, layout))
    topology, router = Topology.parse("uniform:2x1"), Offline(2)
    assert [up_to(most)(remote, topology, router) for most in (8, 7)] == [
        None,
        "8 remote nonzeros, counted unasked up to 7",
    ]
    assert list(passed_over(remote, topology, router)) == ["tree", "cover-greedy"]
    slow = replace(get_strategy("cover"), too_much=up_to(7))
    monkeypatch.setitem(strategy._STRATEGIES, "cover", slow)
    reasons = passed_over(remote, topology, router)
    assert list(reasons) == ["cover", "tree", "cover-greedy"]
    assert reasons["cover"].endswith("; ask for it by name")
    assert set(strategy_names()) - set(candidates(remote, topology)) == {"cover", "tree", "cover-greedy"}
    assert list(passed_over(remote, topology, router, "cover")) == ["tree", "cover-greedy"]
    assert "cover" in candidates(remote, topology, asked="cover")


def test_row_mode_off() -> None:
    """Values stay with the owners of their rows, whatever would be predicted faster."""
    layout = Layout.block(12, 12)
    column = csr_array(np.eye(1, 12, 11).repeat(60, axis=0))
    remote, topology = Remote.of(column.T.tocsr(), Layouts(layout, Layout.block(60, 12))), Topology.parse("uniform:2x6")
    assert make_product(remote, topology, width=1024).strategy == "reduce"
    product = make_product(remote, topology, width=1024, row_mode=False)
    assert product.multiplier.tolist() == remote.nonzeros.rank.tolist()
    assert product.scatter.num_copies == 0
    off = {name for name in strategy_names() if get_strategy(name).row_mode}
    assert off == {name for name in strategy_names() if name in ("reduce", "relay") or "cover" in name}
    for name in strategy_names():
        product = get_strategy(name).build(remote, topology)
        assert name in off or product.multiplier.tolist() == remote.nonzeros.rank.tolist()
    with pytest.raises(InputError, match=r"strategy cover .* row mode is off"):
        make_product(remote, topology, "cover", row_mode=False)
    assert make_product(remote, topology, "direct", row_mode=False).strategy == "direct"


@pytest.mark.parametrize(
    ("spec", "rows"), [("uniform:4x4", 196_608), ("uniform:4x8", 196_608), ("uniform:8x4", 458_752)]
)
def test_allgather_by_formula(spec: str, rows: int) -> None:
    """Each of 65,536 rows enters each other node once."""
    topology = Topology.parse(spec)
    layout = Layout.block(65_536, topology.num_ranks)
    remote = Remote.of(csr_array((65_536, 65_536)), Layouts(layout, layout))
    volume = get_strategy("allgather").count(remote, topology)
    assert volume.rows[-1] == rows
    assert volume.rows.sum() == 65_536 * (topology.num_ranks - 1)
    large = Layout.block(2_000_000, topology.num_ranks)
    remote = Remote.of(csr_array((2_000_000, 2_000_000)), Layouts(large, large))
    assert "allgather" in passed_over(remote, topology, Offline(topology.num_ranks))


def test_ranks_must_match() -> None:
    layout = Layout.block(8, 4)
    remote = Remote.of(csr_array(np.ones((8, 8))), Layouts(layout, layout))
    for call in (check_ranks, make_product):
        with pytest.raises(InputError, match=r"4 parts .* 6 ranks"):
            call(remote, Topology.parse("uniform:2x3"))
