"""What requests that change must do inside JAX: one body for threads and for MPI, collective over the ranks."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsecomm.apps.jax import combine, fetch
from sparsecomm.collectives.dispatch import Dispatch
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.errors import InputError
from tests.jax_bodies import check_whole, drawn
from tests.matrix_cases import owners
from tests.planning_bodies import topologies

NUM_ROWS = 9


def opened(transport: Transport, width: int = 2, dtype: Any = np.float64) -> Dispatch:
    """Return a dispatch of rows, none of them of one rank."""
    layout = owners(NUM_ROWS, transport.num_ranks, seed=5)
    return Dispatch(layout, topologies(transport.num_ranks)[2], transport, width=width, dtype=dtype)


def asked(transport: Transport, seed: int, shape: tuple[int, ...] = (6,)) -> Any:
    """Draw requests with repeats, some of them -1; those of rank 1 are none."""
    shape = (0, *shape[1:]) if transport.rank == 1 else shape
    return jnp.asarray(np.random.default_rng([seed, transport.rank]).integers(-1, NUM_ROWS, shape))


def table(width: int = 2) -> Any:
    return drawn((NUM_ROWS, width), seed=7)


def answered(ids: Any, rows: Any = None) -> Any:
    """Return the rows that must come, from the whole table."""
    rows = table() if rows is None else rows
    return np.where((ids == -1)[..., None], 0, np.asarray(rows)[ids])


def own(dispatch: Dispatch, transport: Transport) -> slice:
    mine = dispatch.layout.own_rows(transport.rank)
    return slice(mine.start, mine.stop)


def check_request_gradients(transport: Transport) -> None:
    """Fetched and combined rows have right gradients, and so have weights."""
    with opened(transport) as dispatch:
        ids, num_own = asked(transport, 0), dispatch.num_own
        check_whole(lambda x: jnp.sin(fetch(dispatch, x, ids)), transport, num_own, len(ids))
        check_whole(lambda y: combine(dispatch, y, ids), transport, len(ids), num_own)
        answers, factors = drawn((len(ids), 2), seed=transport.rank), drawn((NUM_ROWS, 2), seed=9)
        weights, mine = drawn((len(ids),), seed=1), own(dispatch, transport)

        def weigh(weights: Any) -> Any:
            return (combine(dispatch, answers, ids, weights) * factors[mine]).sum()

        expected = (answers * answered(ids, factors)).sum(axis=1)
        np.testing.assert_allclose(jax.jit(jax.grad(weigh))(weights), expected, rtol=1e-12)


def check_request_adjoint(transport: Transport) -> None:
    """<F x, y> = <x, F' y> to 1e-12; a backward pass moves the rows of the forward pass and plans nothing."""
    with opened(transport) as dispatch:
        ids, x = asked(transport, 1, (3, 4)), table()[own(dispatch, transport)]
        y, before = drawn((*ids.shape, 2), seed=transport.rank), dispatch.executed
        found, back = jax.vjp(lambda x: fetch(dispatch, x, ids), x)
        np.testing.assert_array_equal(found, answered(ids))
        between, call = dispatch.executed, dispatch.call
        (grad,) = back(y)
        np.asarray(grad)  # so that it has come
        assert dispatch.call == call
        there, again = between - before, dispatch.executed - between
        for sent in (there, again):
            assert (transport.reduce(sent.rows_sent, "sum") == transport.reduce(there.rows_received, "sum")).all()
        left, right = transport.reduce(np.array([(found * y).sum(), (x * grad).sum()]), "sum")
        assert abs(left - right) <= 1e-12 * max(abs(left), 1)


def check_requests_that_change(transport: Transport) -> None:
    """One compiled program answers other requests at every step, and in a batch; gradients know which."""
    with opened(transport) as dispatch:
        mine = own(dispatch, transport)
        x, steps = table()[mine], jnp.stack([asked(transport, seed) for seed in range(3)])

        def loss(x: Any, steps: Any) -> Any:
            found = jax.lax.scan(lambda sum_, ids: (sum_ + (fetch(dispatch, x, ids) ** 2).sum(), None), 0.0, steps)[0]
            return found + (jax.vmap(partial(fetch, dispatch, x))(steps) ** 3).sum()

        compiled = jax.jit(jax.value_and_grad(loss))
        for requests in (steps, steps[::-1] % NUM_ROWS):
            value, grad = compiled(x, requests)
            rows = answered(requests)
            np.testing.assert_allclose(value, (rows**2).sum() + (rows**3).sum(), rtol=1e-12)
            whole, chosen = np.zeros((NUM_ROWS, 2)), np.asarray(requests)
            np.add.at(whole, chosen[chosen != -1], (2 * rows + 3 * rows**2)[chosen != -1])
            np.testing.assert_allclose(grad, transport.reduce(whole, "sum")[mine], rtol=1e-12, atol=1e-12)


def check_batched_requests(transport: Transport) -> None:
    """Batches of rows and of requests; rows and requests of few bits stay such; a single request is a row."""
    with opened(transport) as dispatch:
        x, steps = table()[own(dispatch, transport)], jnp.stack([asked(transport, seed) for seed in range(3)])
        both = jax.vmap(lambda x, ids: fetch(dispatch, x, ids))(jnp.stack([x, 2 * x, -x]), steps)
        np.testing.assert_array_equal(both, answered(steps) * np.array([1, 2, -1])[:, None, None])
    with opened(transport, width=3, dtype=np.float32) as dispatch:
        rows = table(3).astype(np.float32)
        x = rows[own(dispatch, transport)]
        found = fetch(dispatch, x, jnp.asarray(4, dtype=jnp.int32))
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, rows[4])
        sums = combine(dispatch, jnp.ones((2, 3), dtype=np.float32), jnp.array([4, -1], dtype=np.int8))
        expected = np.zeros((NUM_ROWS, 3))
        expected[4] = transport.num_ranks
        np.testing.assert_array_equal(sums, expected[own(dispatch, transport)])


def check_requests_refused(transport: Transport) -> None:
    """What does not fit is refused while the program is traced; rows that do not exist on all ranks when it runs."""
    with opened(transport) as dispatch:
        x, ids = table()[own(dispatch, transport)], asked(transport, 2)
        for act, words in (
            (lambda: fetch(dispatch, x.astype(np.float32), ids), "own rows must be float64"),
            (lambda: fetch(dispatch, x, ids * 1.0), r"pass ids\.astype"),
            (lambda: combine(dispatch, x[:0], ids), "answers must be float64") if len(ids) else (None, ""),
            (lambda: fetch(None, x, ids), "not a NoneType"),
        ):
            if act is not None:
                with pytest.raises(InputError, match=words):
                    act()
        missing = ids.at[:1].set(NUM_ROWS) if transport.rank == 0 else ids
        with pytest.raises(jax.errors.JaxRuntimeError, match="rank 0 asks for rows"):
            jax.block_until_ready(fetch(dispatch, x, missing))


BODIES = (
    check_request_gradients,
    check_request_adjoint,
    check_requests_that_change,
    check_requests_refused,
)
LONG_BODIES = (*BODIES, check_batched_requests)
