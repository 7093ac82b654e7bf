"""What numpy has of exchanges and products: each operation beside its transpose, without PyTorch or JAX."""

from __future__ import annotations

import numpy as np
import pytest

from sparsecomm.apps.ghost_exchange import GhostExchange
from sparsecomm.apps.gradients import gradients, multiply_keeping
from sparsecomm.collectives.dispatch import Dispatch
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.collectives.transport.local import run_local
from sparsecomm.errors import InputError
from tests.matrix_cases import Dense, cases, dist, owners
from tests.planning_bodies import topologies


def drawn(rows: int, seed: int) -> Dense:
    return np.random.default_rng(seed).standard_normal((rows, 3))


def are_adjoint(transport: Transport, x: Dense, y: Dense, forth: Dense, back: Dense) -> None:
    """<S x, y> = <x, S' y> to 1e-12."""
    left, right = transport.reduce(np.array([(forth * y).sum(), (x * back).sum()]), "sum")
    assert abs(left - right) <= 1e-12 * max(abs(left), 1)


def exchanges(transport: Transport) -> None:
    with dist(cases(transport.num_ranks)[1], "hierarchical", transport) as matrix, GhostExchange.of(matrix) as exchange:
        x, y = drawn(exchange.plan.num_own, transport.rank), drawn(exchange.plan.num_ghost, 9 + transport.rank)
        are_adjoint(transport, x, y, exchange.forward(x), exchange.reverse(y))


def products(transport: Transport) -> None:
    case = cases(transport.num_ranks)[1]
    rows, cols = (side.new_to_old()[side.own_rows(transport.rank)] for side in case.layouts)
    x, grad = drawn(case.matrix.shape[1], 1), drawn(case.matrix.shape[0], 2)
    for way in ("hierarchical", "cover"):
        with dist(case, way, transport) as matrix:
            y, ghosts = multiply_keeping(matrix, x[cols])
            np.testing.assert_allclose(y, (case.matrix @ x)[rows], atol=1e-12)
            of_values, of_x = gradients(matrix, grad[rows], x[cols], ghosts)
            mine = case.rows(transport.rank)
            row, col = np.repeat(rows, np.diff(mine.indptr)), case.layouts.cols.new_to_old()[mine.indices]
            np.testing.assert_allclose(of_values, (grad[row] * x[col]).sum(axis=1), atol=1e-12)
            np.testing.assert_allclose(of_x, (case.matrix.T @ grad)[cols], atol=1e-12)


def requests(transport: Transport) -> None:
    layout, rank = owners(17, transport.num_ranks, seed=5), transport.rank
    rows, weights = np.random.default_rng(rank).integers(0, 17, 6), np.arange(6.0)
    with Dispatch(layout, topologies(transport.num_ranks)[2], transport, width=3, dtype=np.float64) as dispatch:
        x, answers = drawn(dispatch.num_own, rank), drawn(6, 9 + rank)
        fetched = dispatch.fetch(x, rows)
        are_adjoint(transport, x, answers, fetched, dispatch.combine(answers))
        again = dispatch.fetch_again(x) * weights[:, None]
        are_adjoint(transport, x, answers, again, dispatch.combine(answers, weights))


def refusals(transport: Transport) -> None:
    with dist(cases(transport.num_ranks)[1], "hierarchical", transport) as matrix, GhostExchange.of(matrix) as exchange:
        x = drawn(exchange.plan.num_own, 1)
        y, ghosts = multiply_keeping(matrix, x)
        for call, words in (
            (lambda: matrix @ x.tolist(), "an array is needed, not a list"),
            (lambda: list(matrix.products([x.tolist()])), "not a list"),
            (lambda: exchange.forward(x.tolist()), "not a list"),
            (lambda: multiply_keeping(matrix, x[:, 0]), "two dimensions"),
            (lambda: gradients(matrix, np.zeros((len(y) + 1, 3)), x, ghosts), "grad must have"),
            (lambda: gradients(matrix, y, x[:, 1:], ghosts), "x must have .* 3 columns"),
            (lambda: gradients(matrix, y, x, ghosts[:, :2]), "ghosts must have"),
        ):
            with pytest.raises(InputError, match=words):
                call()


@pytest.mark.parametrize("body", [exchanges, products, requests, refusals], ids=lambda body: body.__name__)
def test_transposes(body: object) -> None:
    run_local(3, body, deadline_s=200)  # type: ignore[arg-type]
