"""The fuzz campaign: `make campaign` runs it and writes benchmarks/results/fuzz_campaign.md."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings

from sparsecomm.collectives.strategy import strategy_names
from tests.fuzz.campaign import run_reader, write_table
from tests.fuzz.plans import Drawn, check_exchange, check_planning, products
from tests.fuzz.targets import TARGETS

NUM_INPUTS, NUM_PRODUCTS, NUM_EXCHANGES = 20_000, 2_500, 300
COMMAND = "python -m pytest -m campaign tests/unit/test_fuzz_campaign.py"


@pytest.mark.campaign
@pytest.mark.timeout(7200)
def test_campaign() -> None:
    plans = [
        f"Products with every strategy ({', '.join(strategy_names())}):",
        f"{_plans(check_planning, NUM_PRODUCTS, 9)} proved, counted, held against the bounds, their adjoint and scipy;",
        f"{_plans(check_exchange, NUM_EXCHANGES, 5)} run on threads, message by message. No failure.",
    ]
    outcomes = [run_reader(name, NUM_INPUTS) for name in TARGETS]
    write_table(outcomes, "\n".join(plans), COMMAND)
    assert [problem for outcome in outcomes for problem in outcome.problems()] == []


def _plans(check: Callable[[Drawn], None], num_cases: int, max_ranks: int) -> str:
    """Check that many random cases, the first failing one being made small, and say how many and how long it took."""
    seen, began = [], time.monotonic()

    @settings(max_examples=num_cases, deadline=None, database=None, derandomize=True)
    @given(case=products(max_ranks))
    def run(case: Drawn) -> None:
        seen.append(1)
        check(case)

    run()
    assert len(seen) >= num_cases
    return f"{len(seen):,} random cases in {time.monotonic() - began:.0f} s"
