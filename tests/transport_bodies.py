"""What every transport does besides moving rows: one body for each, collective over the ranks."""

from __future__ import annotations

import numpy as np
import pytest

from sparsecomm.collectives.transport.base import Transport
from sparsecomm.errors import ExchangeError, InputError, PlanError
from sparsecomm.table import Offline, Table
from tests.exchange_cases import Rows, same_bits


def check_route(transport: Transport) -> None:
    """A table routed in a job is the table routed offline, many times in a row."""
    num_ranks, rank = transport.num_ranks, transport.rank
    offline = Offline(num_ranks)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        counts = rng.integers(0, 30, num_ranks) * (rng.random(num_ranks) < (0.7 if seed else 0.0))
        whole = _random_table(rng, counts)
        to_rank = rng.integers(0, num_ranks, len(whole)).astype(np.int32)
        to_rank[rng.random(len(whole)) < 0.5] = 0
        mine = whole.rank == rank
        expected = offline.route(whole, to_rank)
        expected = expected.take(expected.rank == rank)
        found = transport.route(whole.take(mine), to_rank[mine])
        assert list(found.columns) == list(whole.columns)
        assert found.rank.dtype == np.int32
        assert (found.rank == rank).all()
        assert all(same_bits(found[name], expected[name]) for name in whole.columns)


def _random_table(rng: np.random.Generator, counts: Rows) -> Table:
    n = int(counts.sum())
    columns = {
        "row": rng.integers(0, 1 << 60, n),
        "flag": rng.random(n) < 0.5,
        "small": rng.integers(0, 100, n).astype(np.int8),
        "block": rng.standard_normal((n, 3)).astype(np.float32),
        "pair": rng.standard_normal((n, 2)) + 1j,
    }
    return Table(np.repeat(np.arange(counts.size, dtype=np.int32), counts), columns)


def check_route_refuses(transport: Transport) -> None:
    table = Table(np.zeros(1, dtype=np.int32), {"a": np.zeros(1)})
    with pytest.raises(InputError, match="ranks are 0"):
        transport.route(table, np.array([transport.num_ranks], dtype=np.int32))
    with pytest.raises(InputError, match="one rank for each of 1 rows"):
        transport.route(table, np.zeros(2, dtype=np.int32))
    other = {"a": np.zeros(1, dtype=np.float32 if transport.rank == 0 else np.float64)}
    peer = np.array([(transport.rank + 1) % transport.num_ranks], dtype=np.int32)
    if transport.num_ranks > 1 and transport.rank in (0, 1):
        with pytest.raises(ExchangeError, match="other columns or dtypes"):
            transport.route(Table(table.rank, other), peer)
    else:
        transport.route(Table(table.rank, other), peer)


def check_collectives(transport: Transport) -> None:
    rank, num_ranks = transport.rank, transport.num_ranks
    assert transport.held == range(rank, rank + 1)
    values, all_values = np.array([[rank, 1], [2, -rank]]), [np.array([[p, 1], [2, -p]]) for p in range(num_ranks)]
    for dtype in (np.int64, np.float32, np.complex128):
        np.testing.assert_array_equal(transport.reduce(values.astype(dtype), "sum"), sum(all_values))
    np.testing.assert_array_equal(transport.reduce(values, "max"), np.max(all_values, axis=0))
    assert transport.reduce(np.zeros((0, 2)), "sum").shape == (0, 2)
    assert transport.reduce(np.array([rank == 0]), "max").tolist() == [True]
    assert transport.collect(np.array([rank * 3])).tolist() == [3 * p for p in range(num_ranks)]
    assert transport.bcast({"from": rank}, root=num_ranks - 1) == {"from": num_ranks - 1}
    transport.barrier()


def check_agree(transport: Transport) -> None:
    rank, last = transport.rank, transport.num_ranks - 1
    transport.agree(None)
    own = InputError("no such file")
    with pytest.raises(InputError, match="no such file" if rank == last else f"^rank {last}: no such file$") as caught:
        transport.agree(own if rank == last else None)
    assert (caught.value is own) == (rank == last)
    assert caught.value.agreed
    with pytest.raises(ZeroDivisionError if rank == 0 else ExchangeError, match="why"):
        transport.agree(ZeroDivisionError("why") if rank == 0 else None)
    with pytest.raises(PlanError, match=f"of {rank}"):
        transport.agree(PlanError(f"of {rank}"))
    transport.agree(None)


def check_duplicate(transport: Transport) -> None:
    copy = transport.duplicate()
    again = copy.duplicate()
    assert (copy.rank, copy.num_ranks) == (transport.rank, transport.num_ranks)
    assert again.collect(np.array([1])).sum() == copy.collect(np.array([1])).sum() == transport.num_ranks
    again.close()
    copy.close()
