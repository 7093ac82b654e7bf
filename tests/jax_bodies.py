"""What the exchanges inside JAX must do: one body for threads and for MPI, collective over the ranks.

Gradients are checked of functions of whole arrays, equal on all ranks: numerical differences then see what a row of
one rank does to the losses of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from sparsecomm.apps.jax import GhostExchange, gather, scatter, spmm, sum_gradients
from sparsecomm.apps.jax.linear import Linear
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.errors import InputError
from sparsecomm.layout import Layouts
from tests.matrix_cases import Case, Dense, dist, owners, sparse
from tests.planning_bodies import topologies

jax.config.update("jax_enable_x64", True)


def small(num_ranks: int, dtype: Any = np.float64) -> Case:
    """Return a rectangular matrix that leaves a rank without rows."""
    sides = Layouts(owners(8, num_ranks, seed=2), owners(6, num_ranks, seed=3))
    return _kept("small", sides, dtype, num_ranks)


def square(num_ranks: int) -> Case:
    layout = owners(30, num_ranks, seed=9)
    return _kept("square", Layouts(layout, layout), np.float64, num_ranks)


_CASES: dict[Any, Case] = {}


def _kept(name: str, sides: Layouts, dtype: Any, num_ranks: int) -> Case:
    """Return the same object each time, which is what products are kept by."""
    matrix = sparse((sides.rows.num_rows, sides.cols.num_rows), 0.3, dtype, 6)
    made = Case(name, matrix, sides, topologies(num_ranks)[2])
    return _CASES.setdefault((name, np.dtype(dtype), num_ranks), made)


def whole_of(transport: Transport, count: int) -> Linear:
    """Return the map from this rank's rows to the rows of all, on all ranks; its transpose takes them out again."""
    counts = transport.collect(np.array([count]))
    first, total = int(counts[: transport.rank].sum()), int(counts.sum())

    def place(part: Dense) -> Dense:
        whole = np.zeros((total, *part.shape[1:]), dtype=part.dtype)
        whole[first : first + count] = part
        return np.asarray(transport.reduce(whole, "sum"))

    return Linear(place, lambda whole: whole[first : first + count].copy(), count, total)


def check_whole(act: Callable[[Any], Any], transport: Transport, num_in: int, num_out: int) -> None:
    """Hold `act`, from rows of this rank to rows of this rank, against numerical differences."""
    part, whole = whole_of(transport, num_in).transposed, whole_of(transport, num_out)
    x = drawn((part.num_in, 2))
    check_grads(jax.jit(lambda x: whole(act(part(x)))), (x,), order=1, modes=("fwd", "rev"))


def drawn(shape: tuple[int, ...], seed: int = 0, dtype: Any = np.float64) -> Any:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape).astype(dtype))


@contextmanager
def ghosts_of(case: Case, way: str, transport: Transport) -> Iterator[GhostExchange]:
    with dist(case, way, transport) as matrix:
        exchange = GhostExchange.of(matrix)
        yield exchange
        exchange.close()


def check_gradients(transport: Transport) -> None:
    """All have right gradients, forwards and backwards, first and second."""
    with ghosts_of(small(transport.num_ranks), "hierarchical", transport) as exchange:
        own, ghosts = exchange.plan.num_own, exchange.plan.num_ghost
        check_whole(partial(gather, exchange), transport, own, ghosts)
        check_whole(partial(scatter, exchange), transport, ghosts, own)
    with dist(small(transport.num_ranks), "cover", transport) as matrix:
        plans = matrix.product.gather.num_own, matrix.product.scatter.num_own
        check_whole(lambda x: jnp.tanh(spmm(matrix, x)), transport, *plans)


def check_adjoint(transport: Transport) -> None:
    """<S x, y> = <x, S' y> to 1e-12, and a backward pass moves the rows of the forward pass at every level."""
    for way in ("direct", "hierarchical", "relay"):
        with dist(square(transport.num_ranks), way, transport) as matrix:
            x = drawn((matrix.product.gather.num_own, 3), transport.rank)
            y = drawn((matrix.product.scatter.num_own, 3), transport.rank + 100)
            before = matrix.executed.rows_sent
            product, back = jax.vjp(partial(spmm, matrix), x)
            between = np.asarray(product) is not None and matrix.executed.rows_sent
            (grad,) = back(y)
            sides = np.array([(product * y).sum(), (x * grad).sum()])
            forward, backward = (between - before, matrix.executed.rows_sent - between)
            np.testing.assert_array_equal(transport.reduce(forward, "sum"), transport.reduce(backward, "sum"))
            left, right = transport.reduce(sides, "sum")
            assert abs(left - right) <= 1e-12 * max(abs(left), 1), way


def check_order(transport: Transport) -> None:
    """Exchanges that do not depend on each other meet on all ranks: compiled, in loops, batched and left unused."""
    case = square(transport.num_ranks)
    with dist(case, "cover", transport) as one, dist(case, "hierarchical", transport) as other:
        x = drawn((one.product.gather.num_own, 4), transport.rank)

        def mix(rows: Any) -> Any:
            return spmm(one, rows) + spmm(other, rows)

        def act(x: Any) -> Any:
            spmm(one, x)  # nobody needs it
            rows = sum(mix(x * n) for n in (1, 2, 3)) / 100
            return jax.lax.scan(lambda rows, _: (jnp.tanh(mix(rows)), None), rows, length=2)[0].sum()

        value, grad = jax.jit(jax.value_and_grad(act))(x)
        first = 0.12 * (one @ np.asarray(x))
        second = np.tanh(2 * (one @ first))
        third = np.tanh(2 * (one @ second))
        np.testing.assert_allclose(value, third.sum(), rtol=1e-10)
        back = 2 * (one.T @ (1 - third**2))
        back = 2 * (one.T @ ((1 - second**2) * back))
        np.testing.assert_allclose(grad, 0.12 * (one.T @ back), rtol=1e-10, atol=1e-10)
        batched = jax.vmap(partial(spmm, one), in_axes=1, out_axes=1)(x)
        np.testing.assert_allclose(batched, one @ np.asarray(x), rtol=1e-12, atol=1e-12)


def check_training(transport: Transport) -> None:
    """Losses and weights of a graph network are those of a dense one on the whole graph."""
    case = square(transport.num_ranks)
    own = case.layouts.rows.new_to_old()[case.layouts.rows.own_rows(transport.rank)]
    features, target = drawn((30, 5), 1), drawn((30, 2), 2)
    weights = [drawn((5, 4), 3) / 9, drawn((4, 2), 4) / 9]
    dense = jnp.asarray(case.matrix.toarray())

    def loss(mix: Callable[[Any], Any], rows: Any, weights: Any) -> Any:
        hidden = jnp.tanh(mix(features[rows] @ weights[0]))
        return jnp.square(mix(hidden @ weights[1]) - target[rows]).sum() / 60

    with dist(case, "cover", transport) as matrix:
        mine = partial(loss, partial(spmm, matrix), own)
        expected = partial(loss, lambda x: dense @ x, np.arange(30))
        found, (ours, theirs) = [], (train(mine, weights, transport), train(expected, weights, None))
        for (value, first), (reference, second) in zip(ours, theirs, strict=True):
            found.append(transport.reduce(np.array([value]), "sum")[0])
            np.testing.assert_allclose(found[-1], reference, rtol=1e-10)
            jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-10), first, second)
        assert found[-1] < found[0]


def train(loss: Callable[[Any], Any], weights: Any, transport: Transport | None) -> list[Any]:
    @jax.jit
    def step(weights: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(weights)
        if transport is not None:
            grads = sum_gradients(grads, transport)
        return value, jax.tree.map(lambda weight, grad: weight - 0.02 * grad, weights, grads)

    steps = []
    for _ in range(5):
        value, weights = step(weights)
        steps.append((np.asarray(value), weights))
    return steps


def check_single(transport: Transport) -> None:
    """Numbers of 32 bits stay such."""
    case = small(transport.num_ranks, np.float32)
    with dist(case, "cover", transport) as matrix:
        x = drawn((matrix.product.gather.num_own, 2), dtype=np.float32)
        y = spmm(matrix, x)
        assert y.dtype == np.float32
        np.testing.assert_array_equal(y, matrix @ np.asarray(x))


def check_refused(transport: Transport) -> None:
    """What cannot be exchanged is refused while the program is traced, with a cure."""
    with dist(small(transport.num_ranks), "direct", transport) as matrix:
        exchange, own = GhostExchange.of(matrix), matrix.product.gather.num_own
        with pytest.raises(InputError, match="X is float32, but the matrix is float64"):
            spmm(matrix, drawn((own, 2), dtype=np.float32))
        with pytest.raises(InputError, match=rf"has {own} rows here, not an array of shape \({own + 1}, 2\)"):
            jax.jit(partial(gather, exchange))(drawn((own + 1, 2)))
        with pytest.raises(InputError, match="bfloat16"):
            gather(exchange, jnp.zeros((own, 2), dtype=jnp.bfloat16))
        exchange.close()


BODIES = (check_gradients, check_adjoint, check_order, check_training, check_single, check_refused)
