"""What a dispatch must do with other requests at every call: one body for threads and for MPI."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sparsecomm.collectives.dispatch import Dispatch
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.errors import InputError
from sparsecomm.layout import Layout
from sparsecomm.topology import Topology
from tests.transport_wrappers import Late

Rows = np.ndarray[Any, Any]


def two_nodes(num_ranks: int) -> Topology:
    return Topology.from_nodes(np.arange(num_ranks) * 2 // num_ranks)


def requests_of(num_rows: int, rank: int, seed: int) -> Rows:
    """Draw requests with many repeats; now and then none."""
    rng = np.random.default_rng([seed, rank])
    size = int(rng.integers(0, 60)) * int(rng.random() < 0.85)
    return rng.integers(0, num_rows, size) ** 2 // num_rows


def rows_crossing(layout: Layout, topology: Topology, asked: list[Rows]) -> int:
    """Count distinct (row, node) pairs, the row owned in another node."""
    node = topology.rank_to_node
    pairs = {(int(row), int(node[rank])) for rank, rows in enumerate(asked) for row in rows}
    return sum(node[layout.owner(np.array([row]))[0]] != there for row, there in pairs)


def check_calls(transport: Transport) -> None:
    """Every call gets what it asks for, moves no row twice, and its transpose sums exactly."""
    num_ranks, rank = transport.num_ranks, transport.rank
    counts = np.random.default_rng(num_ranks).integers(0, 30, num_ranks)
    layout, topology = Layout(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)), two_nodes(num_ranks)
    own = slice(*layout.offsets[rank : rank + 2])
    if layout.num_rows == 0:
        return
    with Dispatch(layout, topology, Late(transport, 0), width=3, dtype=np.float64) as dispatch:
        for seed in range(6):
            rng = np.random.default_rng(seed)
            x = rng.integers(-50, 50, (layout.num_rows, 3)).astype(np.float64)
            asked = [requests_of(layout.num_rows, p, seed) for p in range(num_ranks)]
            before = dispatch.executed
            np.testing.assert_array_equal(dispatch.fetch(x[own], asked[rank]), x[asked[rank]])
            crossed = transport.reduce((dispatch.executed - before).rows_received, "sum")
            assert crossed[-1] == (rows_crossing(layout, topology, asked) if topology.num_levels > 1 else crossed[-1])
            answers = [rng.integers(-50, 50, (rows.size, 3)).astype(np.float64) for rows in asked]
            weights = [rng.integers(-3, 4, rows.size) for rows in asked]
            expected = np.zeros_like(x)
            for rows, answer, weight in zip(asked, answers, weights, strict=True):
                np.add.at(expected, rows, answer * weight[:, None])
            np.testing.assert_array_equal(dispatch.combine(answers[rank], weights[rank]), expected[own])
            plain = np.zeros_like(x)
            np.add.at(plain, np.concatenate(asked), np.concatenate(answers))
            np.testing.assert_array_equal(dispatch.combine(answers[rank]), plain[own])


def check_experts(transport: Transport) -> None:
    """Owners send rows to ranks; answers come back to the owners."""
    num_ranks, rank = transport.num_ranks, transport.rank
    layout = Layout.block(10 * num_ranks, num_ranks)
    rng = np.random.default_rng([1, rank])
    x = np.random.default_rng(0).integers(-9, 9, (layout.num_rows, 2)).astype(np.float32)
    own = layout.own_rows(rank)
    token = np.repeat(np.arange(own.start, own.stop), 3)
    expert = rng.integers(0, 5 * num_ranks, token.size)
    with Dispatch(layout, two_nodes(num_ranks), transport, width=2) as dispatch:
        got = dispatch.send(token, (expert // 5).astype(np.int32), expert=expert)
        assert (got["expert"] // 5 == rank).all()
        inputs = dispatch.fetch(x[own.start : own.stop], got["row"])
        sums = dispatch.combine(inputs * got["expert"][:, None].astype(np.float32))
    expected = x[own.start : own.stop] * expert.reshape(-1, 3).sum(axis=1)[:, None]
    np.testing.assert_array_equal(sums, expected.astype(np.float32))


def check_refusals(transport: Transport) -> None:
    """What one rank gets wrong is refused on all, and the next call works."""
    layout, last = Layout.block(4 * transport.num_ranks, transport.num_ranks), transport.rank == transport.num_ranks - 1
    x, ask = np.ones((4, 2), dtype=np.float32), np.arange(layout.num_rows)
    with Dispatch(layout, two_nodes(transport.num_ranks), transport, width=2) as dispatch:
        for wrong in (ask + 1, ask.astype(np.int32), ask[:, None], -ask):
            with pytest.raises(InputError, match="rows"):
                dispatch.fetch(x, wrong if last else ask)
        with pytest.raises(InputError, match="own rows must be float32"):
            dispatch.fetch(x[:3] if last else x, ask)
        with pytest.raises(InputError, match="ranks are 0"):
            dispatch.send(ask, np.full(ask.size, transport.num_ranks if last else 0, dtype=np.int32))
        with pytest.raises(InputError, match="one length"):
            dispatch.send(ask, np.zeros(ask.size - int(last), dtype=np.int32))
        dispatch.fetch(x, ask)
        with pytest.raises(InputError, match="answered rows"):
            dispatch.combine(np.ones((ask.size - int(last), 2), dtype=np.float32))
        with pytest.raises(InputError, match="weights must be one for each"):
            dispatch.combine(np.ones((ask.size, 2), dtype=np.float32), np.ones(ask.size - int(last)))
        sums = dispatch.combine(dispatch.fetch(x, ask))
        np.testing.assert_array_equal(sums, np.full((4, 2), transport.num_ranks))
    with pytest.raises(InputError, match="numbers of ranks differ"):
        Dispatch(Layout.block(8, transport.num_ranks + 1), two_nodes(transport.num_ranks), transport, width=2)


BODIES = [check_calls, check_experts, check_refusals]
