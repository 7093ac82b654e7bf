"""Plans, blocks of rows, and what an exchange of them must bring."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sparsecomm.collectives.transport.base import Transport
from sparsecomm.plan import Plan
from tests.reference_plans import direct_plan, hub_plan, random_case

Rows = np.ndarray[Any, Any]
DTYPES = (np.float32, np.float64, np.complex64, np.complex128, np.int64)
MAKERS = (direct_plan, hub_plan)


def plans(transport: Transport, seeds: range = range(2)) -> Iterator[Plan]:
    for seed in seeds:
        case = random_case(transport.num_ranks, seed)
        yield from (make(case) for make in MAKERS)


def blocks(indptr: Rows, width: int, dtype: Any, seed: int, *, whole: bool = False) -> list[Rows]:
    """Draw a block of rows for every rank; `whole` numbers are summed exactly in any order."""
    rng = np.random.default_rng(seed)
    shape = (int(indptr[-1]), width)
    if whole or np.issubdtype(dtype, np.integer):
        drawn = rng.integers(-50, 50, shape) + (1j * rng.integers(-50, 50, shape) if np.iscomplexobj(dtype()) else 0)
    else:
        drawn = rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if np.iscomplexobj(dtype()) else 0)
    return np.split(drawn.astype(dtype), indptr[1:-1])


def same_bits(found: Rows, expected: Rows) -> bool:
    return found.dtype == expected.dtype and found.shape == expected.shape and found.tobytes() == expected.tobytes()


def transposed(plan: Plan, partials: list[Rows]) -> list[Rows]:
    """Sum partial rows by their global number, knowing nothing of stages."""
    total = np.zeros((int(plan.offsets[-1]), partials[0].shape[1]), dtype=partials[0].dtype)
    np.add.at(total, plan.ghost_rows, np.concatenate(partials))
    return np.split(total, plan.offsets[1:-1])
