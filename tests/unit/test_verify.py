"""Every rule of a stage list, each broken alone in a small plan written by hand."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from sparsecomm.collectives.strategy import get_strategy
from sparsecomm.errors import PlanError
from sparsecomm.layout import Layout, Layouts
from sparsecomm.pattern import Remote
from sparsecomm.plan import Plan, Stage
from sparsecomm.product import Product
from sparsecomm.topology import Topology
from tests.planning_oracles import MACHINES, plan_rows, random_case, stage_entries

NODE, NETWORK = 0, 1


@dataclass
class Draft:
    """A plan in lists; a stage is its level and (src, dst, send, recv) of every copy."""

    ghosts: list[list[int]]
    staging: list[list[int]]
    stages: list[tuple[int, list[tuple[int, int, int, int]]]]

    def plan(self) -> Plan:
        return Plan(
            Topology.parse("uniform:2x2"),
            np.arange(0, 9, 2),
            _indptr(self.ghosts),
            np.array([*chain.from_iterable(self.ghosts)]),
            _indptr(self.staging),
            np.array([*chain.from_iterable(self.staging)]),
            tuple(_stage(level, copies) for level, copies in self.stages),
        )


def _indptr(lists: list[list[int]]) -> Any:
    return np.cumsum([0, *map(len, lists)])


def _stage(level: int, copies: list[tuple[int, int, int, int]]) -> Stage:
    return Stage(level, *np.array(copies, dtype=np.int32).reshape(-1, 4).T)


def draft() -> Draft:
    """Rank p owns rows 2p and 2p + 1. Rows 0, 2 and 3 cross to ranks 2 and 3, rows 4 and 5 stay in their node."""
    return Draft(
        ghosts=[[], [], [0, 2, 3], [0, 4, 5]],
        staging=[[], [], [], [2, 3]],
        stages=[
            (NETWORK, [(0, 2, 0, 2), (1, 3, 0, 5), (1, 3, 1, 6)]),
            (NODE, [(3, 2, 5, 3), (3, 2, 6, 4), (2, 3, 2, 2), (2, 3, 0, 3), (2, 3, 1, 4)]),
        ],
    )


def refused(plan: Plan, *words: str) -> None:
    with pytest.raises(PlanError) as error:
        plan.verify()
    for word in words:
        assert re.search(word, str(error.value)), f"{word!r} is not in {str(error.value)!r}"


def test_the_draft_is_right() -> None:
    draft().plan().verify()


@pytest.mark.parametrize("case", [random_case(seed, tree) for seed, tree in enumerate([*MACHINES.values()] * 2)])
def test_real_plans_pass(case: Any) -> None:
    remote = Remote.of(case.matrix, case.layouts)
    for name in ("direct", "hierarchical", "reduce"):
        get_strategy(name).build(remote, case.machine.topology).verify(remote)


@pytest.mark.parametrize("name", ["src", "dst", "send", "recv"])
def test_lengths_differ(name: str) -> None:
    plan = draft().plan()
    short = replace(plan.stages[1], **{name: getattr(plan.stages[1], name)[:-1]})
    refused(replace(plan, stages=(plan.stages[0], short)), "stage 1", "length")


@pytest.mark.parametrize("rank", [-1, 4, 100])
@pytest.mark.parametrize("name", ["src", "dst"])
def test_rank_that_does_not_exist(name: str, rank: int) -> None:
    refused(_change(draft().plan(), 0, name, 1, rank), "stage 0, copy 1", f"of rank {rank}", "rank that does not exist")


@pytest.mark.parametrize("slot", [-1, 7, 2**31 - 1])
@pytest.mark.parametrize(("name", "rank"), [("send", 3), ("recv", 2)])
def test_slot_that_does_not_exist(name: str, rank: int, slot: int) -> None:
    refused(
        _change(draft().plan(), 1, name, 1, slot), "stage 1, copy 1", f"slot {slot} of rank {rank}", "does not exist"
    )


def test_copy_to_itself() -> None:
    refused(_change(draft().plan(), 1, "src", 2, 3), "stage 1, copy 2", "rank 3 -> .* rank 3", "rank that holds it")


@pytest.mark.parametrize(("number", "level", "name"), [(0, NODE, "node"), (1, NETWORK, "network")])
def test_wrong_level(number: int, level: int, name: str) -> None:
    broken = draft()
    broken.stages[number] = (level, broken.stages[number][1])
    refused(broken.plan(), f"stage {number}, copy 0", f"level {name}")


@pytest.mark.parametrize("level", [2, 64, -1])
@pytest.mark.parametrize("empty", [False, True])
def test_level_that_does_not_exist(level: int, empty: bool) -> None:
    broken = draft()
    broken.stages.insert(1, (level, [] if empty else [(0, 2, 0, 2)]))
    refused(broken.plan(), "stage 1", f"level {level}")


def test_level_of_one_copy() -> None:
    broken = draft()
    broken.stages[1][1].insert(0, (0, 1, 0, 2))
    broken.ghosts[1] = [0]
    broken.plan().verify()
    broken.stages[1][1].pop(0)
    broken.stages[0][1].insert(0, (0, 1, 0, 2))
    refused(broken.plan(), "stage 0, copy 0: slot 0 of rank 0 -> slot 2 of rank 1", "level network")


def test_reads_before_anything_is_written() -> None:
    broken = draft()
    broken.stages.reverse()
    refused(broken.plan(), "stage 0, copy 0: slot 5 of rank 3 -> slot 3 of rank 2", "nothing has written")


def test_reads_what_its_own_stage_writes() -> None:
    """Stages are an order: what a stage writes can be read from the next one on."""
    broken = Draft([[], [0], [], []], [[], [], [], []], [(NODE, [(0, 1, 0, 2)])])
    broken.plan().verify()
    through = Draft([[], [4], [], []], [[4], [], [], []], [(NETWORK, [(2, 0, 0, 2)]), (NODE, [(0, 1, 2, 2)])])
    through.plan().verify()
    ghosts = [[0], [0], [0], [0]]
    ghosts[0] = []
    together = Draft(ghosts, [[]] * 4, [(NETWORK, [(0, 2, 0, 2), (2, 1, 2, 2)]), (NODE, [(2, 3, 2, 2)])])
    together.stages[0][1].sort(key=lambda copy: copy[1])
    refused(together.plan(), "stage 0, copy 0: slot 2 of rank 2 -> slot 2 of rank 1", "nothing has written")


@pytest.mark.parametrize(("name", "slot"), [("send", 1), ("recv", 3)])
def test_row_of_another_slot(name: str, slot: int) -> None:
    refused(_change(draft().plan(), 0, name, 0, slot), "stage 0, copy 0", f"slot {slot} of rank", "slot of another row")


@pytest.mark.parametrize("same_stage", [True, False])
def test_slot_written_twice(same_stage: bool) -> None:
    broken = draft()
    stage = broken.stages[1] if same_stage else (NODE, [])
    if not same_stage:
        broken.stages.append(stage)
    stage[1].insert(0, (3, 2, 5, 3))
    first = "stage 1, copy 0" if same_stage else "stage 2, copy 0"
    refused(broken.plan(), first, "slot 3 of rank 2", "second time")


def test_own_slot_written() -> None:
    broken = draft()
    broken.stages.append((NETWORK, [(2, 0, 2, 0)]))
    refused(broken.plan(), "stage 2, copy 0: slot 2 of rank 2 -> slot 0 of rank 0", "second time")


@pytest.mark.parametrize(
    ("number", "order"), [(0, [1, 0, 2]), (0, [0, 2, 1]), (1, [2, 3, 4, 0, 1]), (1, [0, 1, 3, 2, 4])]
)
def test_out_of_canonical_order(number: int, order: list[int]) -> None:
    plan = draft().plan()
    stages = list(plan.stages)
    stages[number] = replace(
        stages[number], **{name: getattr(stages[number], name)[order] for name in ("src", "dst", "send", "recv")}
    )
    refused(replace(plan, stages=tuple(stages)), f"stage {number}, copy ", "canonical order")


def test_ghosts_do_not_ascend() -> None:
    broken = draft()
    broken.ghosts[3] = [0, 5, 4]
    broken.stages[1][1][3:] = [(2, 3, 0, 4), (2, 3, 1, 3)]
    refused(broken.plan(), "ghost", "ascend", "rank 3")


def test_ghost_twice() -> None:
    broken = draft()
    broken.ghosts[3] = [0, 4, 4, 5]
    broken.stages[0][1][1:] = [(1, 3, 0, 6), (1, 3, 1, 7)]
    broken.stages[1] = (NODE, [(3, 2, 6, 3), (3, 2, 7, 4), (2, 3, 2, 2), (2, 3, 0, 3), (2, 3, 0, 4), (2, 3, 1, 5)])
    refused(broken.plan(), "ghost", "ascend", "rank 3")


def test_own_row_as_ghost() -> None:
    broken = draft()
    broken.ghosts[0] = [0]
    broken.stages.append((NETWORK, [(2, 0, 2, 2)]))
    refused(broken.plan(), "rank 0 has its own row 0 as a ghost")


def test_staging_order_by_row() -> None:
    broken = draft()
    broken.staging[3] = [3, 2]
    broken.stages[0][1][1:] = [(1, 3, 0, 6), (1, 3, 1, 5)]
    broken.stages[1][1][:2] = [(3, 2, 6, 3), (3, 2, 5, 4)]
    refused(broken.plan(), "staging slots of rank 3", r"\(stage, row\)")


def test_staging_order_by_stage() -> None:
    """Row 3 comes in an earlier stage than row 2, so its slot comes first, although its number is larger."""
    right = draft()
    right.stages[0] = (NETWORK, [(0, 2, 0, 2), (1, 3, 1, 5)])
    right.stages.insert(1, (NETWORK, [(1, 3, 0, 6)]))
    right.staging[3] = [3, 2]
    right.stages[2][1][:2] = [(3, 2, 6, 3), (3, 2, 5, 4)]
    right.plan().verify()
    right.staging[3] = [2, 3]
    right.stages[0] = (NETWORK, [(0, 2, 0, 2), (1, 3, 1, 6)])
    right.stages[1] = (NETWORK, [(1, 3, 0, 5)])
    right.stages[2][1][:2] = [(3, 2, 5, 3), (3, 2, 6, 4)]
    refused(right.plan(), "staging slots of rank 3", r"\(stage, row\)")


def test_ghost_never_received() -> None:
    broken = draft()
    del broken.stages[1][1][3]
    refused(broken.plan(), r"rank 3 never receives row 4 \(slot 3\)")


def test_staging_never_received() -> None:
    broken = draft()
    broken.staging[0] = [6]
    refused(broken.plan(), r"rank 0 never receives row 6 \(slot 2\)")


def test_staging_never_passed_on() -> None:
    broken = draft()
    broken.staging[0] = [6]
    broken.stages.append((NETWORK, [(3, 0, 0, 2)]))
    refused(broken.plan(), "rank 0 holds row 6 in staging slot 2 and never passes it on")


def test_row_both_ghost_and_in_transit() -> None:
    """A hub that uses a row itself has it in its ghost slot and passes it on from there."""
    broken = draft()
    broken.staging[2] = [0]
    broken.stages[0][1].insert(1, (0, 2, 0, 5))
    broken.stages[1][1][2] = (2, 3, 5, 2)
    refused(broken.plan(), "rank 2", "row 0", "staging")


def test_own_row_in_transit() -> None:
    broken = draft()
    broken.staging[0] = [0]
    broken.ghosts[1] = [0]
    broken.stages += [(NETWORK, [(2, 0, 2, 2)]), (NODE, [(0, 1, 2, 2)])]
    refused(broken.plan(), "rank 0", "row 0", "staging")


def test_row_twice_in_transit() -> None:
    broken = draft()
    broken.staging[3] = [2, 2, 3]
    broken.ghosts[1] = []
    broken.stages[0] = (NETWORK, [(0, 2, 0, 2), (1, 3, 0, 5), (1, 3, 0, 6), (1, 3, 1, 7)])
    broken.stages[1][1][:2] = [(3, 2, 5, 3), (3, 2, 7, 4)]
    broken.ghosts[0] = [2]
    broken.stages.append((NETWORK, [(3, 0, 6, 2)]))
    refused(broken.plan(), "rank 3", "row 2", "staging")


@pytest.mark.parametrize("change", ["offsets", "ghost_indptr", "staging_indptr", "ghost_rows", "staging_rows"])
@pytest.mark.parametrize("how", [lambda a: a[:-1], lambda a: np.append(a, a[-1])], ids=["shorter", "longer"])
def test_arrays_that_do_not_fit_each_other(change: str, how: Callable[[Any], Any]) -> None:
    plan = draft().plan()
    with pytest.raises(PlanError):
        replace(plan, **{change: how(getattr(plan, change))}).verify()


@pytest.mark.parametrize("name", ["offsets", "ghost_indptr", "staging_indptr"])
@pytest.mark.parametrize("bad", [[1, 2, 4, 6, 8], [0, 9, 4, 6, 8], [0, -1, 1, 2, 3], [0, 0, 0, 0, 0]])
def test_bounds_that_make_no_sense(name: str, bad: list[int]) -> None:
    with pytest.raises(PlanError):
        replace(draft().plan(), **{name: np.array(bad)}).verify()


def test_topology_of_another_size() -> None:
    for spec, ranks in (("uniform:2x3", 6), ("uniform:1x2", 2)):
        with pytest.raises(PlanError, match=f"{ranks} ranks"):
            replace(draft().plan(), topology=Topology.parse(spec)).verify()


def test_no_single_change_goes_unseen() -> None:
    """Add or take 1 anywhere in a real plan: it is refused, unless the copy found the same row elsewhere."""
    matrix = csr_array((np.random.default_rng(3).random((18, 18)) < 0.3).astype(np.int64))
    layout = Layout.block(18, 7)
    remote = Remote.of(matrix, Layouts(layout, layout))
    plan = get_strategy("hierarchical").build(remote, Topology.parse("nodes:3,3,1")).gather
    assert plan.staging_rows.size > 3
    seen = 0
    for number, stage in enumerate(plan.stages):
        for name in ("src", "dst", "send", "recv"):
            for i, value in enumerate(getattr(stage, name).tolist()):
                seen += sum(_refused_or_equal(_change(plan, number, name, i, value + by)) for by in (-1, 1))
    assert seen > 500
    for name in ("offsets", "ghost_indptr", "ghost_rows", "staging_indptr", "staging_rows"):
        for i, value in enumerate(getattr(plan, name).tolist()):
            for by in (-1, 1):
                array = getattr(plan, name).copy()
                array[i] = value + by
                with pytest.raises(PlanError):
                    replace(plan, **{name: array}).verify()


def _refused_or_equal(plan: Plan) -> bool:
    try:
        plan.verify()
    except PlanError:
        return True
    rows = plan_rows(plan)
    held = [dict(enumerate(rows[p][: int(n)])) for p, n in enumerate(np.diff(plan.offsets))]
    for stage in plan.stages:
        moved = [(dst, recv, held[src][send]) for src, dst, send, recv in stage_entries(stage)]
        for dst, recv, row in moved:
            held[dst][recv] = row
    assert held == [dict(enumerate(part)) for part in rows]
    return False


def _change(plan: Plan, number: int, name: str, i: int, value: int) -> Plan:
    stages = list(plan.stages)
    array = getattr(stages[number], name).copy()
    array[i] = value
    stages[number] = replace(stages[number], **{name: array})
    return replace(plan, stages=tuple(stages))


def _product() -> tuple[Product, Remote]:
    layout = Layout.block(12, 4)
    matrix = csr_array((np.random.default_rng(5).random((12, 12)) < 0.5).astype(np.int64))
    remote = Remote.of(matrix, Layouts(layout, layout))
    return get_strategy("hierarchical").build(remote, Topology.parse("uniform:2x2")), remote


def test_multiplier_must_have_row_and_column() -> None:
    product, remote = _product()
    product.verify(remote)
    for i, rank in enumerate(remote.nonzeros["col_rank"].tolist()):
        changed = product.multiplier.copy()
        changed[i] = rank
        row, col = remote.nonzeros["row"][i], remote.nonzeros["col"][i]
        with pytest.raises(PlanError, match=rf"nonzero \({row}, {col}\) is multiplied by rank {rank}, .* row"):
            replace(product, multiplier=changed).verify(remote)


def test_multiplier_without_the_column() -> None:
    product, remote = _product()
    layout = product.layouts.cols
    empty = Draft([[]] * 4, [[]] * 4, []).plan()
    empty = replace(empty, offsets=layout.offsets)
    with pytest.raises(PlanError, match="does not have its col"):
        replace(product, gather=empty).verify(remote)


@pytest.mark.parametrize("rank", [-1, 4])
def test_multiplier_that_does_not_exist(rank: int) -> None:
    product, remote = _product()
    changed = product.multiplier.copy()
    changed[3] = rank
    with pytest.raises(PlanError, match=f"rank {rank}"):
        replace(product, multiplier=changed).verify(remote)


def test_number_of_multipliers() -> None:
    product, remote = _product()
    with pytest.raises(PlanError, match="multipliers"):
        replace(product, multiplier=product.multiplier[:-1]).verify(remote)


def test_either_plan_is_verified() -> None:
    product, _ = _product()
    broken = _change(product.gather, 0, "send", 0, 99)
    for name in ("gather", "scatter"):
        with pytest.raises(PlanError, match="stage 0"):
            replace(product, **{name: broken}).verify()
