"""What the allreduces of training must do: one body for threads and for MPI, held against numpy on all arrays."""

from __future__ import annotations

import numpy as np
import pytest

from sparsecomm.collectives.sign_allreduce import SignAllreduce
from sparsecomm.collectives.sum_allreduce import MaskedAllreduce, SumAllreduce
from sparsecomm.collectives.topk_allreduce import TopKAllreduce
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.errors import InputError, PlanError

SIZES = (0, 1, 5, 64, 1000)


def brought(transport: Transport, size: int, seed: int = 0) -> np.ndarray:
    """Return what all ranks bring, (num_ranks, size), with ties, zeros of both signs and rounding that shows order."""
    rng = np.random.default_rng([seed, size])
    values = rng.standard_normal((transport.num_ranks, size)) * 10.0 ** rng.integers(-8, 8, (transport.num_ranks, size))
    values[rng.random(values.shape) < 0.2] = 0.0
    values[rng.random(values.shape) < 0.1] = -0.0
    return values


def check_sum(transport: Transport) -> None:
    """Sums come in the order of the ranks, again and again."""
    for size in SIZES:
        for dtype in (np.float32, np.float64):
            allreduce = SumAllreduce(transport, size, dtype)
            for seed in range(3):
                rows = brought(transport, size, seed).astype(dtype)
                expected = rows[0].copy()
                for row in rows[1:]:
                    expected = expected + row
                np.testing.assert_array_equal(allreduce(rows[transport.rank]), expected)
            allreduce.close()


def check_sign(transport: Transport) -> None:
    """The majority of the signs is exact, whatever coins the others throw; all ranks get the same, again and again."""
    for size in SIZES:
        allreduce, again = (SignAllreduce(transport, size) for _ in range(2))
        for seed in range(3):
            rows = brought(transport, size, seed)
            lead, unsure = (rows > 0).sum(axis=0) - (rows < 0).sum(axis=0), (rows == 0).sum(axis=0)
            voted = allreduce(rows[transport.rank])
            assert voted.dtype == np.int8
            assert (abs(voted) == 1).all()
            decided = abs(lead) > unsure
            np.testing.assert_array_equal(voted[decided], np.sign(lead)[decided])
            np.testing.assert_array_equal(voted, again(rows[transport.rank]))
            np.testing.assert_array_equal(transport.bcast(voted), voted)
        for made in (allreduce, again):
            made.close()


def check_coins(transport: Transport) -> None:
    """Ties, zeros and NaN fall either way, half of the time, and otherwise in the next call."""
    size = 4096
    allreduce = SignAllreduce(transport, size, seed=3)
    tie = np.full(size, -1.0 if transport.rank % 2 else 1.0)
    for values in (tie if transport.num_ranks % 2 == 0 else np.zeros(size), np.zeros(size), np.full(size, np.nan)):
        first, second = allreduce(values), allreduce(values)
        for voted in (first, second, first * second):
            assert abs(voted.sum()) < 5 * np.sqrt(size)
    allreduce.close()


def check_bytes(transport: Transport) -> None:
    """Signs send 1/32 of the bytes of float32 sums, which send those of a ring; a 1:16 mask exactly 1/16."""
    ranks = transport.num_ranks
    size = 16 * 8 * ranks * 3
    mask = np.arange(size) % 16 == 5
    reduces = (
        SumAllreduce(transport, size, np.float32),
        SignAllreduce(transport, size),
        MaskedAllreduce(transport, mask, np.float32),
    )
    values = np.ones(size, dtype=np.float32)
    for reduce in reduces:
        reduce(values)
    whole, sign, kept = (reduce.bytes_sent for reduce in reduces)
    assert whole == 2 * (ranks - 1) * size * 4 // ranks
    assert sign * 32 == whole
    assert kept * 16 == whole
    for reduce in reduces:
        reduce.close()


def check_mask(transport: Transport) -> None:
    """Kept entries are summed, the others are zero; ranks with different masks are refused."""
    rows = brought(transport, 256).astype(np.float32)
    mask = np.random.default_rng(1).random(256) < 0.1
    masked = MaskedAllreduce(transport, mask, np.float32)
    whole = SumAllreduce(transport, 256, np.float32)
    mine = rows[transport.rank]
    np.testing.assert_array_equal(masked(mine), np.where(mask, whole(mine), 0))
    for reduce in (masked, whole):
        reduce.close()
    with pytest.raises(InputError, match="mask must be a bool array"):
        MaskedAllreduce(transport, np.ones(3), np.float32)  # type: ignore[arg-type]
    if transport.num_ranks > 1:
        with pytest.raises(PlanError, match="mask"):
            MaskedAllreduce(transport, np.arange(9) % 3 == transport.rank % 2, np.float32)


def check_top_k(transport: Transport) -> None:
    """The largest sums of the largest entries come to all ranks; the others wait, equal ones from the last on."""
    ranks = transport.num_ranks
    for size, k, dtype in ((1, 1, np.float32), (40, 7, np.float64), (300, 20, np.float32), (50, 50, np.float64)):
        allreduce = TopKAllreduce(transport, size, k, dtype)
        held = np.zeros((ranks, size), dtype=dtype)
        for seed in range(4):
            rows = np.random.default_rng([seed, size]).integers(-9, 10, (ranks, size)).astype(dtype)
            held += rows
            taken = np.zeros((ranks, size), dtype=bool)
            for mine, row in zip(taken, held, strict=True):
                mine[np.argsort(-abs(row), kind="stable")[:k]] = True
            sums = np.where(taken, held, 0).sum(axis=0)
            given = np.flatnonzero(taken.any(axis=0))
            chosen = given[np.argsort(-abs(sums[given]), kind="stable")[:k]]
            expected = np.zeros(size, dtype=dtype)
            expected[chosen] = sums[chosen]
            held[:, chosen] = np.where(taken[:, chosen], 0, held[:, chosen])
            np.testing.assert_array_equal(allreduce(rows[transport.rank]), expected)
            np.testing.assert_array_equal(allreduce.held_back, held[transport.rank])
        allreduce.close()
    for k, dtype in ((0, np.float32), (9, np.float32), (1, np.int32)):
        with pytest.raises(InputError, match=r"cannot be taken|must be float32"):
            TopKAllreduce(transport, 8, k, dtype)


def check_top_k_volume(transport: Transport) -> None:
    """No rank sends more than 3 k + P entries, wherever in the array the large ones are."""
    ranks, size, k = transport.num_ranks, 5000, 60
    for place in ("everywhere", "one end", "one rank"):
        values = np.random.default_rng([1, transport.rank]).standard_normal(size).astype(np.float32)
        values[:k] *= 1 if place == "everywhere" else 1e3
        values *= 1e3 if place == "one rank" and transport.rank == 0 else 1
        allreduce = TopKAllreduce(transport, size, k, np.float32)
        allreduce(values)
        assert allreduce.bytes_sent <= (3 * k + ranks) * 8, place
        allreduce.close()


BODIES = (check_sum, check_sign, check_coins, check_bytes, check_mask, check_top_k, check_top_k_volume)
