"""Random patterns, layouts and machines: every strategy's product is proved, counted, bounded and run."""

from __future__ import annotations

from hypothesis import given, settings

from tests.fuzz.plans import Drawn, check_exchange, check_planning, products


@settings(max_examples=80, deadline=None, database=None, derandomize=True)
@given(case=products())
def test_planning(case: Drawn) -> None:
    check_planning(case)


@settings(max_examples=15, deadline=None, database=None, derandomize=True)
@given(case=products(max_ranks=5))
def test_exchange(case: Drawn) -> None:
    check_exchange(case)
