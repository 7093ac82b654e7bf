"""JAX over exchanges, with one thread per rank."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from sparsecomm.collectives.transport.base import Transport
from sparsecomm.collectives.transport.local import run_local
from sparsecomm.errors import InputError
from tests.jobs import ROOT
from tests.matrix_cases import cases, dist

jax = pytest.importorskip("jax", reason="JAX is not installed")
# Threads of one process share the few that run programs: a rank that waits must not keep one of them.
jax.config.update("jax_cpu_enable_async_dispatch", False)
jax_bodies = pytest.importorskip("tests.jax_bodies")
jax_request_bodies = pytest.importorskip("tests.jax_request_bodies")


@pytest.mark.parametrize("body", jax_bodies.BODIES, ids=lambda body: body.__name__)
def test_body(body: Callable[[Transport], None]) -> None:
    run_local(2, body, deadline_s=200)


@pytest.mark.parametrize("body", jax_request_bodies.BODIES, ids=lambda body: body.__name__)
def test_requests(body: Callable[[Transport], None]) -> None:
    run_local(2, body, deadline_s=100)


def test_what_is_none_is_refused() -> None:
    run_local(2, refusals, deadline_s=200)


def refusals(transport: Transport) -> None:
    from sparsecomm.apps.jax import gather, spmm, sum_gradients

    with dist(cases(transport.num_ranks)[1], "hierarchical", transport) as matrix:
        for call, words in (
            (lambda: gather(matrix, jax.numpy.ones(3)), r"give GhostExchange\.of\(matrix\)"),
            (lambda: spmm(matrix.H, jax.numpy.ones(3)), "not a TransposedMatrix"),
            (lambda: spmm(matrix, [1, 2]), "convert one of them"),
            (lambda: sum_gradients(jax.numpy.ones(3), None), "needs the transport"),
        ):
            with pytest.raises(InputError, match=words):
                call()
    with pytest.raises(RuntimeError, match="is closed"):
        spmm(matrix, jax.numpy.ones((matrix.product.gather.num_own, 1)))


def test_the_page_runs() -> None:
    page = (ROOT / "docs" / "integrations.md").read_text()
    (block,) = (one for one in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "import jax" in one)
    exec(block, {})


@pytest.mark.campaign
@pytest.mark.parametrize("num_ranks", [1, 3, 4])
@pytest.mark.parametrize("body", [*jax_bodies.BODIES, *jax_request_bodies.LONG_BODIES], ids=lambda body: body.__name__)
def test_body_at_more_sizes(body: Callable[[Transport], None], num_ranks: int) -> None:
    run_local(num_ranks, body, deadline_s=200)
