"""JAX over exchanges, with one thread per rank."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from sparsecomm.collectives.transport.base import Transport
from sparsecomm.collectives.transport.local import run_local
from tests.jobs import ROOT

jax = pytest.importorskip("jax", reason="JAX is not installed")
# Threads of one process share the few that run programs: a rank that waits must not keep one of them.
jax.config.update("jax_cpu_enable_async_dispatch", False)
jax_bodies = pytest.importorskip("tests.jax_bodies")


@pytest.mark.parametrize("body", jax_bodies.BODIES, ids=lambda body: body.__name__)
def test_body(body: Callable[[Transport], None]) -> None:
    run_local(2, body, deadline_s=20)


def test_the_page_runs() -> None:
    page = (ROOT / "docs" / "integrations.md").read_text()
    (block,) = (one for one in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "import jax" in one)
    exec(block, {})


@pytest.mark.campaign
@pytest.mark.parametrize("num_ranks", [1, 3, 4])
@pytest.mark.parametrize("body", jax_bodies.BODIES, ids=lambda body: body.__name__)
def test_body_at_more_sizes(body: Callable[[Transport], None], num_ranks: int) -> None:
    run_local(num_ranks, body, deadline_s=60)
