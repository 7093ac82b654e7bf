"""The fuzz campaign: `make campaign` runs it and writes benchmarks/results/fuzz_campaign.md."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings

from sparsecomm.collectives.strategy import strategy_names
from tests.fuzz.campaign import keep, keep_plans, run_reader
from tests.fuzz.plans import Drawn, check_exchange, check_planning, products
from tests.fuzz.targets import TARGETS

NUM_INPUTS = 20_000

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(7200)]


@pytest.mark.parametrize("name", TARGETS)
def test_reader(name: str) -> None:
    outcome = run_reader(name, NUM_INPUTS)
    keep(outcome)
    assert outcome.problems() == []


@pytest.mark.parametrize(
    ("check", "num_cases", "max_ranks", "what"),
    [
        (check_planning, 2_500, 9, "proved, counted, held against the bounds, their adjoint and scipy"),
        (check_exchange, 300, 5, "run on threads, message by message, to the bits of the reference"),
    ],
    ids=["planning", "exchange"],
)
def test_plans(check: Callable[[Drawn], None], num_cases: int, max_ranks: int, what: str) -> None:
    """Check random cases; the first failing one is made small."""
    seen, began = [], time.monotonic()

    @settings(max_examples=num_cases, deadline=None, database=None, derandomize=True)
    @given(case=products(max_ranks))
    def run(case: Drawn) -> None:
        seen.append(1)
        check(case)

    run()
    assert len(seen) >= num_cases
    names, seconds = ", ".join(strategy_names()), time.monotonic() - began
    keep_plans(
        check.__name__,
        f"- {len(seen):,} random products of each strategy ({names}) {what}: no failure, {seconds:.0f} s",
    )
