"""Slices, memory, fingerprints, graphs and tables of plans, against loops over the copies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from sparsecomm.collectives.strategy import get_strategy
from sparsecomm.cost import CostModel
from sparsecomm.errors import PlanError
from sparsecomm.layout import Layout, Layouts
from sparsecomm.pattern import Remote
from sparsecomm.plan import Messages, Plan, RankPlan, Stage, check_slots, fingerprint_of
from sparsecomm.product import Product
from sparsecomm.topology import Topology
from tests.planning_bodies import differences
from tests.planning_oracles import MACHINES, plan_copies, plan_rows, random_case, stage_entries

CASES = [random_case(seed, tree) for seed, tree in enumerate([*MACHINES.values()] * 2)]


def _plans() -> Iterator[Plan]:
    for number, case in enumerate(CASES):
        remote = Remote.of(case.matrix, case.layouts)
        name = ("direct", "hierarchical", "reduce")[number % 3]
        product = get_strategy(name).build(remote, case.machine.topology)
        yield product.scatter if name == "reduce" else product.gather


PLANS = list(_plans())
EVERY = pytest.mark.parametrize("plan", PLANS, ids=range(len(PLANS)))


def _product(name: str = "hierarchical", size: int = 30) -> Product:
    layout = Layout.block(size, 7)
    matrix = csr_array((np.random.default_rng(2).random((size, size)) < 0.3).astype(np.int64))
    return get_strategy(name).build(Remote.of(matrix, Layouts(layout, layout)), Topology.parse("nodes:3,3,1"))


def _messages(side: Messages) -> list[tuple[int, list[int]]]:
    bounds = side.indptr.tolist()
    slots = side.slots.tolist()
    return [(peer, slots[bounds[i] : bounds[i + 1]]) for i, peer in enumerate(side.peers.tolist())]


def _expected_messages(entries: list[tuple[int, ...]], rank: int, sends: bool) -> list[tuple[int, list[int]]]:
    """Return peer and slots of what `rank` sends or receives, in the order of the copies."""
    found: dict[int, list[int]] = {}
    for src, dst, send, recv in entries:
        mine, peer, slot = (src, dst, send) if sends else (dst, src, recv)
        if mine == rank:
            found.setdefault(peer, []).append(slot)
    return sorted(found.items())


@EVERY
def test_slices(plan: Plan) -> None:
    rows = plan_rows(plan)
    for p, shard in enumerate(plan.shards()):
        assert not differences(shard, plan.rank(p))
        assert (shard.rank, shard.start, shard.num_own) == (p, plan.offsets[p], plan.offsets[p + 1] - plan.offsets[p])
        assert shard.slot_rows().tolist() == rows[p]
        assert shard.rows_at(np.arange(len(rows[p]), dtype=np.int32)).tolist() == rows[p]
        assert shard.num_slots == len(rows[p])
        assert shard.num_ghost == plan.ghost_indptr[p + 1] - plan.ghost_indptr[p]
        for stage, part in zip(plan.stages, shard.stages, strict=True):
            entries = stage_entries(stage)
            assert part.level == stage.level
            assert _messages(part.send) == _expected_messages(entries, p, sends=True)
            assert _messages(part.recv) == _expected_messages(entries, p, sends=False)
            assert part.send.num_rows == sum(src == p for src, *_ in entries)


@EVERY
def test_both_sides_of_a_message_hold_the_same_rows(plan: Plan) -> None:
    shards = list(plan.shards())
    rows = [shard.slot_rows() for shard in shards]
    for number in range(len(plan.stages)):
        sent, got = {}, {}
        for p, shard in enumerate(shards):
            stage = shard.stages[number]
            sent |= {(p, peer): rows[p][slots].tolist() for peer, slots in _messages(stage.send)}
            got |= {(peer, p): rows[p][slots].tolist() for peer, slots in _messages(stage.recv)}
        assert sent == got


@EVERY
def test_slot_rows(plan: Plan) -> None:
    held = plan.held_rows()
    for p, rows in enumerate(plan_rows(plan)):
        slots = np.arange(len(rows), dtype=np.int32)
        assert plan.rows_at(np.full_like(slots, p), slots, held).tolist() == rows
    assert np.diff(plan.slot_start()).tolist() == [len(part) for part in plan_rows(plan)]
    assert plan.num_copies == sum(map(len, plan_copies(plan)))


@EVERY
def test_memory(plan: Plan) -> None:
    copies = [copy for stage in plan_copies(plan) for copy in stage]
    rows = plan_rows(plan)
    expected = [len(rows[p]) + sum((c.src == p) + (c.dst == p) for c in copies) for p in range(plan.num_ranks)]
    for width, dtype, itemsize in ((1, np.uint8, 1), (64, np.float32, 4), (3, np.complex128, 16)):
        memory = plan.memory(width, dtype)
        assert memory.tolist() == [width * itemsize * number for number in expected]
        assert [shard.memory(width, dtype) for shard in plan.shards()] == memory.tolist()


@EVERY
def test_rows_and_messages_of_a_rank(plan: Plan) -> None:
    num_levels, stages = plan.topology.num_levels, plan_copies(plan)
    copies = [copy for stage in stages for copy in stage]
    messages = {(number, c.level, c.src, c.dst) for number, stage in enumerate(stages) for c in stage}
    for p, shard in enumerate(plan.shards()):
        sent, received = shard.rows(num_levels)
        assert sent.tolist() == [sum(c.level == n and c.src == p for c in copies) for n in range(num_levels)]
        assert received.tolist() == [sum(c.level == n and c.dst == p for c in copies) for n in range(num_levels)]
        sent, received = shard.messages(num_levels)
        assert sent.tolist() == [sum(m[1] == n and m[2] == p for m in messages) for n in range(num_levels)]
        assert received.tolist() == [sum(m[1] == n and m[3] == p for m in messages) for n in range(num_levels)]


@EVERY
def test_volume_of_a_plan(plan: Plan) -> None:
    volume, num_levels = plan.volume(), plan.topology.num_levels
    assert volume.rows.tolist() == (sum(shard.rows(num_levels)[0] for shard in plan.shards())).tolist()
    assert volume.messages.tolist() == (sum(shard.messages(num_levels)[1] for shard in plan.shards())).tolist()
    backwards = plan.moves(reverse=True)
    assert backwards.reverse
    assert backwards.messages["rows"].sum() == plan.num_copies


@EVERY
def test_networkx(plan: Plan) -> None:
    graph = plan.to_networkx()
    assert dict(graph.nodes(data="node")) == dict(enumerate(plan.topology.rank_to_node.tolist()))
    names = plan.topology.level_names
    expected = Counter(
        (number, copy.src, copy.dst, names[copy.level])
        for number, stage in enumerate(plan_copies(plan))
        for copy in stage
    )
    edges = [((d["stage"], src, dst, d["level"]), d["rows"]) for src, dst, d in graph.edges(data=True)]
    assert len(edges) == len(expected)
    assert dict(edges) == expected


def test_types_and_read_only() -> None:
    plan = _product().gather
    for stage in plan.stages:
        for array in (stage.src, stage.dst, stage.send, stage.recv):
            assert array.dtype == np.int32
            assert not array.flags.writeable
    for name in ("offsets", "ghost_indptr", "ghost_rows", "staging_indptr", "staging_rows"):
        assert getattr(plan, name).dtype == np.int64
        assert not getattr(plan, name).flags.writeable
    shard = plan.rank(1)
    for part in shard.stages:
        for side in (part.send, part.recv):
            assert (side.peers.dtype, side.indptr.dtype, side.slots.dtype) == (np.int32, np.int64, np.int32)


def test_making_a_stage_leaves_the_callers_array_writable() -> None:
    array = np.zeros(1, dtype=np.int32)
    Stage(0, array, array, array, array)
    array[0] = 1


def test_same_plan_same_fingerprint() -> None:
    one, two = _product(), _product()
    assert one.fingerprint() == two.fingerprint()
    assert one.gather.fingerprint() == two.gather.fingerprint()
    assert len(one.fingerprint()) == 16
    int(one.fingerprint(), 16)


def _variants(plan: Plan) -> Iterator[Plan]:
    """Yield the plan with one entry changed, at every place; the result need not be a legal plan."""
    for name in ("ghost_rows", "staging_rows"):
        for i in range(getattr(plan, name).size):
            array = getattr(plan, name).copy()
            array[i] += 1
            yield replace(plan, **{name: array})
    for name in ("offsets", "ghost_indptr", "staging_indptr"):
        for i in range(1, getattr(plan, name).size - 1):
            array = getattr(plan, name).copy()
            if array[i] < array[i + 1]:
                array[i] += 1
                yield replace(plan, **{name: array})
    for number, stage in enumerate(plan.stages):
        for name in ("src", "dst", "send", "recv"):
            for i in range(stage.num_copies):
                array = getattr(stage, name).copy()
                array[i] = (array[i] + 1) % plan.num_ranks if name in ("src", "dst") else array[i] + 1
                yield _with_stage(plan, number, replace(stage, **{name: array}))
        yield _with_stage(plan, number, replace(stage, level=(stage.level + 1) % 2))


def _with_stage(plan: Plan, number: int, stage: Stage) -> Plan:
    return replace(plan, stages=(*plan.stages[:number], stage, *plan.stages[number + 1 :]))


def test_fingerprint_sees_every_entry() -> None:
    plan = _product(size=16).gather
    assert plan.staging_rows.size > 2
    prints = [plan.fingerprint(), *(variant.fingerprint() for variant in _variants(plan))]
    assert len(prints) > 200
    assert len(set(prints)) == len(prints)


def test_fingerprint_sees_order_and_place() -> None:
    plan = _product().gather
    first, last = plan.stages
    others = [
        replace(plan, stages=(last, first)),
        replace(plan, stages=(first,)),
        replace(plan, stages=(first, _empty_stage(0), last)),
        replace(plan, stages=(first, last, _empty_stage(0))),
        replace(plan, stages=(first, last, _empty_stage(1))),
        _with_stage(plan, 1, replace(last, send=last.send[::-1])),
        replace(plan, ghost_rows=_swap_ghosts(plan)),
        replace(plan, staging_rows=plan.staging_rows[::-1]),
    ]
    prints = {plan.fingerprint(), *(other.fingerprint() for other in others)}
    assert len(prints) == 1 + len(others)


def _empty_stage(level: int) -> Stage:
    nothing = np.empty(0, dtype=np.int32)
    return Stage(level, nothing, nothing, nothing, nothing)


def _swap_ghosts(plan: Plan) -> Any:
    """Exchange the ghost rows of the first two ranks that have equally many."""
    lists = [plan.ghost_rows[a:b] for a, b in pairwise(plan.ghost_indptr)]
    p, q = next((p, q) for p in range(7) for q in range(p) if lists[p].size == lists[q].size > 0)
    assert not np.array_equal(lists[p], lists[q])
    lists[p], lists[q] = lists[q], lists[p]
    return np.concatenate(lists)


def test_fingerprint_is_the_sum_of_the_ranks() -> None:
    for name in ("direct", "hierarchical", "reduce"):
        product = _product(name)
        total = sum(shard.hash() for shard in product.gather.shards()) % 2**64
        assert product.gather.fingerprint() == f"{total:016x}"
        parts = zip(product.gather.shards(), product.scatter.shards(), strict=True)
        hashes = np.array([(g.hash() + 5 * s.hash()) % 2**64 for g, s in parts], dtype=np.uint64)
        assert product.fingerprint() == fingerprint_of(hashes[::-1])


def test_product_fingerprint_tells_gather_from_scatter() -> None:
    product = _product()
    turned = replace(product, gather=product.scatter, scatter=product.gather)
    assert turned.fingerprint() != product.fingerprint()
    assert len({_product(name).fingerprint() for name in ("direct", "hierarchical", "reduce")}) == 3


def test_too_many_slots() -> None:
    check_slots(2**31 - 1)
    with pytest.raises(PlanError, match="more ranks"):
        check_slots(2**31)


def test_product_slices() -> None:
    layout = Layout.block(30, 7)
    matrix = csr_array((np.random.default_rng(2).random((30, 30)) < 0.3).astype(np.int64))
    remote, product = Remote.of(matrix, Layouts(layout, layout)), _product("reduce")
    parts = [product.rank(p, remote) for p in range(7)]
    assert [part.rank for part in parts] == list(range(7))
    assert np.array_equal(np.concatenate([part.multiplier for part in parts]), product.multiplier)
    for p, part in enumerate(parts):
        assert part.multiplier.size == np.count_nonzero(remote.nonzeros.rank == p)
        assert not differences(part.scatter, product.scatter.rank(p))
        assert not differences(part.gather, product.gather.rank(p))
    assert f"{sum(part.hash() for part in parts) % 2**64:016x}" == product.fingerprint()


@pytest.mark.parametrize("name", ["direct", "hierarchical", "reduce"])
def test_describe_holds_the_numbers(name: str) -> None:
    product = _product(name)
    text = product.describe(width=32, dtype=np.float64)
    volume = product.volume()
    seconds = CostModel(product.topology).estimate(volume, 32, 8).communication_s
    header = text.partition("-----")[0]
    for word in (
        name,
        "nodes:3,3,1: 7 ranks on 3 nodes",
        "32 x float64",
        f"{volume.rows[-1]:,}",
        f"{product.memory(32, np.float64).max() / 1e6:,.3f} MB",
        f"{seconds * 1e3:.3f} ms",
    ):
        assert word in header
    lines = [line.split() for line in text.splitlines() if line.strip().startswith(("gather", "scatter"))]
    plan = product.scatter if name == "reduce" else product.gather
    assert len(lines) == len(plan.stages)
    for number, (line, copies) in enumerate(zip(lines, plan_copies(plan), strict=True)):
        pairs = {(c.src, c.dst) for c in copies}
        messages = len(pairs)
        rounds = max(max(Counter(pair[side] for pair in pairs).values()) for side in (0, 1))
        ends = [*Counter(c.src for c in copies).values(), *Counter(c.dst for c in copies).values()]
        rows, megabytes = len(copies), len(copies) * 32 * 8 / 1e6
        level = product.topology.levels[plan.stages[number].level].name
        kind = "scatter" if name == "reduce" else "gather"
        counts = [f"{rows:,}", str(messages), f"{megabytes:,.3f}", str(max(ends)), str(rounds)]
        assert line == [kind, str(number), level, *counts]
    assert str(product) == product.describe()


def test_rank_plan_without_anything() -> None:
    nothing = np.empty(0, dtype=np.int64)
    plan = RankPlan(0, 0, 0, nothing, nothing, ())
    assert plan.num_slots == plan.memory(64, np.float32) == 0
    assert plan.rows(2)[0].tolist() == plan.messages(2)[1].tolist() == [0, 0]
