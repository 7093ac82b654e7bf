"""Requests that change at every call, with threads; the real routing trace of a mixture of experts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsecomm.collectives.buffers import Shelf
from sparsecomm.collectives.dispatch import Dispatch
from sparsecomm.collectives.exchange import Exchange
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.collectives.transport.index_codec import Code, decode, encode
from sparsecomm.collectives.transport.local import run_local
from sparsecomm.collectives.transport.packing import pack_rows
from sparsecomm.errors import ExchangeError, InputError
from sparsecomm.layout import Layout
from sparsecomm.pattern import Pattern
from sparsecomm.table import Table
from sparsecomm.topology import Topology
from tests import dispatch_bodies
from tests.conftest import DataDir
from tests.reference_plans import direct_plan, random_case


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("body", dispatch_bodies.BODIES, ids=lambda body: body.__name__)
def test_body(body: Callable[[Transport], None], num_ranks: int) -> None:
    run_local(num_ranks, body)


def test_routing_trace(data_dir: DataDir) -> None:
    """2,434 tokens, 4 of 60 experts each, on 8 ranks of 2 nodes: no row crosses twice, the sums are the dense ones."""
    chosen = np.load(data_dir / "moe" / "qwen15_moe_layer0_topk4_real.npy").astype(np.int64)
    weights = np.load(data_dir / "moe" / "qwen15_moe_layer0_topk4_real_weights.npy")
    topology, tokens, experts = Topology.parse("uniform:2x4"), Layout.block(len(chosen), 8), Layout.block(60, 8)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((len(chosen), 16)).astype(np.float32)
    matrices = rng.standard_normal((60, 16, 16)).astype(np.float32)
    to_rank = experts.owner(chosen)

    def layer(transport: Transport) -> tuple[np.ndarray, ...]:
        own = slice(*tokens.offsets[transport.rank : transport.rank + 2])
        row = np.repeat(np.arange(own.start, own.stop), 4)
        with Dispatch(tokens, topology, transport, width=16) as dispatch:
            picked = {"expert": chosen[own].ravel(), "weight": weights[own].ravel()}
            got = dispatch.send(row, to_rank[own].ravel(), **picked)
            inputs = dispatch.fetch(x[own], got["row"])
            outputs = np.empty_like(inputs)
            for expert in np.unique(got["expert"]):
                mine = got["expert"] == expert
                outputs[mine] = inputs[mine] @ matrices[expert]
            there = dispatch.executed.rows_received
            return dispatch.combine(outputs, got["weight"]), there, dispatch.executed.rows_received - there

    parts = run_local(8, layer)
    node = topology.rank_to_node
    pairs = {(t, int(node[d])) for t in range(len(chosen)) for d in to_rank[t]}
    crossing = sum(int(node[tokens.owner(np.array([t]))[0]]) != there for t, there in pairs)
    for way in (1, 2):
        assert sum(int(part[way][1]) for part in parts) == crossing
    dense = np.zeros((len(chosen), 16))
    for choice, weight in zip(chosen.T, weights.T, strict=True):
        dense += np.einsum("ti,tij->tj", x.astype(np.float64), matrices[choice]) * weight[:, None]
    np.testing.assert_allclose(np.concatenate([part[0] for part in parts]), dense, rtol=0, atol=1e-5)


def test_replan_refuses() -> None:
    plan, layout = direct_plan(random_case(6, seed=1)), Layout.block(18, 6)
    pattern, flat = Pattern.empty(layout), Topology.from_nodes(np.zeros(6, dtype=np.int32))

    def body(transport: Transport) -> None:
        with Exchange(plan.rank(transport.rank), transport, 2) as exchange:
            pending = exchange.start(np.zeros((exchange.plan.num_own, 2), np.float32)) if transport.rank == 0 else None
            with pytest.raises(InputError, match="1 runs are under way"):
                exchange.replan(pattern, flat)
            if pending is None:
                pending = exchange.start(np.zeros((exchange.plan.num_own, 2), np.float32))
            pending.wait()
            with pytest.raises(InputError, match="numbers of ranks differ"):
                exchange.replan(pattern, Topology.parse("uniform:2x2"))
            with pytest.raises(InputError, match="give it num_levels"):
                exchange.replan(pattern, Topology.parse("summit:1"))
            exchange.replan(pattern, flat)
            assert exchange.forward(np.zeros((3, 2), np.float32)).shape == (0, 2)

    run_local(6, body)


def test_memory_is_kept() -> None:
    shelf = Shelf()
    first = shelf.empty((10, 3), np.float64)
    shelf.rewind()
    assert np.shares_memory(first, shelf.empty((5, 3), np.float32))
    assert shelf.empty((4,), np.int64).size == 4
    shelf.rewind()
    grown = shelf.empty((100, 3), np.float64)
    assert not np.shares_memory(first, grown)
    shelf.rewind()
    assert np.shares_memory(grown, shelf.empty((120, 3), np.float64))


NUMBERS = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20) | st.lists(st.integers(0, 300), max_size=99)


@given(NUMBERS, st.booleans())
def test_numbers_survive(values: list[int], distinct: bool) -> None:
    numbers = np.array(sorted(set(values)) if distinct else values, dtype=np.int64)
    found = decode(encode(numbers), numbers.size)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, numbers)


@pytest.mark.parametrize(
    ("numbers", "code", "num_bytes"),
    [
        (np.arange(1 << 40, (1 << 40) + 999), Code.RANGE, 0),
        (np.delete(np.arange(800), 7), Code.BITMAP, 100),
        (np.arange(0, 800, 20), Code.OFFSETS_16, 80),
        (np.arange(0, 800, 10)[::-1], Code.OFFSETS_16, 160),
        (np.arange(0, 200, 10), Code.OFFSETS_8, 20),
        (np.array([5, 1 << 20]), Code.OFFSETS_32, 8),
        (np.array([5, 1 << 40]), Code.PLAIN, 16),
        (np.repeat(np.arange(100), 2), Code.OFFSETS_8, 200),
    ],
)
def test_fewest_bytes_are_taken(numbers: np.ndarray, code: Code, num_bytes: int) -> None:
    found = encode(numbers)
    assert (found.code, found.data.size) == (code, num_bytes)


def test_wrong_number_of_numbers_is_found() -> None:
    with pytest.raises(ExchangeError, match="2 row numbers came where 3"):
        decode(encode(np.array([1, 5])), 3)


def test_routed_rows_take_few_bytes() -> None:
    rows = np.delete(np.arange(8000), slice(None, None, 3))
    table = Table(np.zeros(rows.size, dtype=np.int32), {"row": rows})
    (block,) = pack_rows(table, np.zeros(rows.size, dtype=np.int32), 1).values()
    assert block.size < rows.size * 8 / 40
