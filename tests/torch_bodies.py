"""What the exchanges inside PyTorch must do: one body for threads and for MPI, collective over the ranks.

Gradients are checked of functions of whole tensors, equal on all ranks: numerical differences then see what a row of
one rank does to the losses of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from sparsecomm.apps.handles import handle_of
from sparsecomm.apps.matrix import DistMatrix
from sparsecomm.apps.torch import (
    DistSparse,
    GhostExchange,
    MaskedGradients,
    ModelParallelLinear,
    SignGradients,
    TopKGradients,
    combine,
    fetch,
    gather,
    scatter,
    spmm,
    sum_gradients,
    two_steps,
)
from sparsecomm.apps.torch.arrays import as_array
from sparsecomm.collectives.dispatch import Dispatch
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.errors import InputError
from sparsecomm.layout import Layouts
from tests.matrix_cases import Case, dist, owners, rank_product, sparse
from tests.planning_bodies import topologies

WAYS = ("hierarchical", "cover", "via-hierarchical")
_CASES: dict[tuple[int, Any], Case] = {}


def small(num_ranks: int, dtype: Any = np.float64) -> Case:
    """Return a rectangular matrix that leaves a rank without rows; the same object each time."""
    if (num_ranks, dtype) not in _CASES:
        sides = Layouts(owners(8, num_ranks, seed=2), owners(6, num_ranks, seed=3))
        made = Case("small", sparse((8, 6), 0.5, dtype, 6), sides, topologies(num_ranks)[2])
        _CASES.setdefault((num_ranks, dtype), made)
    return _CASES[num_ranks, dtype]


class Part(torch.autograd.Function):
    """This rank's rows of a tensor that all ranks have."""

    @staticmethod
    def forward(ctx: Any, whole: torch.Tensor, rows: slice, transport: Transport) -> torch.Tensor:
        ctx.rows, ctx.transport, ctx.num_rows = rows, transport, len(whole)
        return whole[rows].clone()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return Whole.apply(grad, ctx.rows, ctx.num_rows, ctx.transport), None, None


class Whole(torch.autograd.Function):
    """A tensor that all ranks have, of the rows of each."""

    @staticmethod
    def forward(ctx: Any, part: torch.Tensor, rows: slice, num_rows: int, transport: Transport) -> torch.Tensor:
        ctx.rows, ctx.transport = rows, transport
        return _summed(part, rows, (num_rows, *part.shape[1:]), transport)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        return Part.apply(grad, ctx.rows, ctx.transport), None, None, None


def _summed(part: torch.Tensor, rows: slice, shape: tuple[int, ...], transport: Transport) -> torch.Tensor:
    part = part.resolve_conj()
    whole = np.zeros(shape, dtype=part.numpy().dtype)
    whole[rows] = part.numpy()
    return torch.from_numpy(transport.reduce(whole, "sum"))


def rows_of(transport: Transport, count: int) -> tuple[slice, int]:
    """Return where this rank's rows stand when those of all ranks are laid end to end, and how many there are."""
    counts = transport.collect(np.array([count]))
    first = int(counts[: transport.rank].sum())
    return slice(first, first + count), int(counts.sum())


def on_whole(
    act: Callable[[torch.Tensor], torch.Tensor], transport: Transport, num_in: int, num_out: int
) -> tuple[Callable[[torch.Tensor], torch.Tensor], int]:
    """Return `act` as a function of the rows of all ranks, and how many they are."""
    (mine, total), (made, total_out) = rows_of(transport, num_in), rows_of(transport, num_out)
    return lambda whole: Whole.apply(act(Part.apply(whole, mine, transport)), made, total_out, transport), total


def drawn(shape: tuple[int, ...], dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)).requires_grad_()


@contextmanager
def ghosts_of(case: Case, way: str, transport: Transport) -> Iterator[GhostExchange]:
    with dist(case, way, transport) as matrix:
        exchange = GhostExchange.of(matrix)
        yield exchange
        exchange.close()


def check_gather_and_scatter(transport: Transport) -> None:
    """Both have right gradients, first and second, for rows of any shape."""
    with ghosts_of(small(transport.num_ranks), "hierarchical", transport) as exchange:
        own, ghosts = exchange.plan.num_own, exchange.plan.num_ghost
        fetch, rows = on_whole(lambda x: gather(exchange, x), transport, own, ghosts)
        assert torch.autograd.gradcheck(fetch, (drawn((rows, 2, 1)),))
        assert torch.autograd.gradgradcheck(fetch, (drawn((rows,)),), (drawn((rows_of(transport, ghosts)[1],)),))
        add, rows = on_whole(lambda x: scatter(exchange, x), transport, ghosts, own)
        if rows:
            assert torch.autograd.gradcheck(add, (drawn((rows, 2)),))
        with pytest.raises(InputError, match="own rows, not an array of shape"):
            gather(exchange, torch.zeros(own + 1, 2))


def check_spmm(transport: Transport) -> None:
    """A @ X has right gradients whoever multiplies, real and complex."""
    for dtype, ways in ((np.float64, WAYS), (np.complex128, ("cover",))):
        case = small(transport.num_ranks, dtype)
        for way in ways:
            with dist(case, way, transport) as matrix:
                plans = matrix.product.gather.num_own, matrix.product.scatter.num_own
                apply, rows = on_whole(lambda x, m=matrix: spmm(m, x), transport, *plans)
                x = drawn((rows, 2), torch.from_numpy(np.zeros(0, dtype)).dtype)
                assert torch.autograd.gradcheck(apply, (x,), check_undefined_grad=False)


def check_two_steps(transport: Transport) -> None:
    """H (H' X) is that of the whole H, and so is its gradient."""
    for dtype in (np.float64, np.complex128):
        case = small(transport.num_ranks, dtype)
        dense, rows = torch.from_numpy(case.matrix.toarray()), case.layouts.rows
        nodes = torch.from_numpy(rows.new_to_old()[rows.own_rows(transport.rank)])
        whole, factor = drawn((8, 3), dense.dtype), drawn((8, 3), dense.dtype, seed=1).detach()
        mine = whole.detach()[nodes].requires_grad_()
        expected = dense @ (dense.mH @ whole)
        with dist(case, "cover", transport) as matrix:
            found = two_steps(matrix, mine)
            torch.testing.assert_close(found, expected[nodes])
            (found * factor[nodes]).real.sum().backward()
        (expected * factor).real.sum().backward()
        torch.testing.assert_close(mine.grad, whole.grad[nodes])


def check_values(transport: Transport) -> None:
    """The values of the nonzeros learn, also those that another rank multiplies, and the rows of X with them."""
    case = small(transport.num_ranks)
    for way in WAYS:
        with dist(case, way, transport) as matrix:
            rows = case.rows(transport.rank)
            module = DistSparse(matrix, torch.from_numpy(rows.data.copy()))
            mine, nnz = rows_of(transport, rows.nnz)
            cols, num_cols = rows_of(transport, matrix.product.gather.num_own)
            made, num_rows = rows_of(transport, rows.shape[0])

            def apply(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
                given = {"values": Part.apply(values, mine, transport)}  # noqa: B023
                y = torch.func.functional_call(module, given, (Part.apply(x, cols, transport),))  # noqa: B023
                return Whole.apply(y, made, num_rows, transport)  # noqa: B023

            assert torch.autograd.gradcheck(apply, (drawn((nnz,), seed=1), drawn((num_cols, 1))))


def check_linear(transport: Transport) -> None:
    """A linear layer with a sparse weight over ranks equals torch's own dense one, outputs and gradients."""
    case = small(transport.num_ranks)
    rank, layouts = transport.rank, case.layouts
    layer = ModelParallelLinear(case.rows(rank), layouts, case.topology, transport, strategy="cover")
    x, weight = drawn((5, 6)), torch.from_numpy(case.matrix.toarray()).requires_grad_()
    bias = drawn((8,), seed=4)
    outputs, inputs = (torch.from_numpy(side.new_to_old()[side.own_rows(rank)]) for side in layouts)
    with torch.no_grad():
        layer.bias.copy_(bias[outputs])
    whole = torch.nn.functional.linear(x, weight, bias)
    mine = x.detach()[:, inputs].requires_grad_()
    y = layer(mine)
    torch.testing.assert_close(y, whole[:, outputs])
    factor = drawn((5, 8), seed=5).detach()
    (whole * factor).sum().backward()
    (y * factor[:, outputs]).sum().backward()
    torch.testing.assert_close(mine.grad, x.grad[:, inputs])
    torch.testing.assert_close(layer.bias.grad, bias.grad[outputs])
    rows = case.rows(rank)
    row = np.repeat(outputs.numpy(), np.diff(rows.indptr))
    expected = weight.grad[row, layouts.cols.new_to_old()[rows.indices]]
    torch.testing.assert_close(layer.weight.values.grad, expected)
    layer.close()


def _asked(transport: Transport, num_rows: int, seed: int) -> torch.Tensor:
    """Draw requests with repeats; those of rank 1 are none."""
    size = 0 if transport.rank == 1 else 5
    return torch.from_numpy(np.random.default_rng([seed, transport.rank]).integers(0, num_rows, size))


def check_dispatch(transport: Transport) -> None:
    """Fetched and combined rows have right gradients, first and second, for weights too, after other calls as well."""
    layout, topology = owners(7, transport.num_ranks, seed=5), topologies(transport.num_ranks)[2]
    with Dispatch(layout, topology, transport, width=2, dtype=np.float64) as dispatch:
        rows, own = _asked(transport, layout.num_rows, 0), dispatch.num_own
        get, num_rows = on_whole(lambda x: fetch(dispatch, x, rows), transport, own, len(rows))
        assert torch.autograd.gradcheck(get, (drawn((num_rows, 2)),))
        add, asked = on_whole(lambda y: combine(dispatch, y), transport, len(rows), own)
        assert torch.autograd.gradcheck(add, (drawn((asked, 2)),))
        assert torch.autograd.gradgradcheck(add, (drawn((asked, 2)),), (drawn((num_rows, 2)),))
        mine, total = rows_of(transport, len(rows))
        answers = drawn((len(rows), 2), seed=transport.rank).detach()

        def weigh(weights: torch.Tensor) -> torch.Tensor:
            sums = combine(dispatch, answers, Part.apply(weights, mine, transport))
            return Whole.apply(sums, *rows_of(transport, own), transport)

        assert torch.autograd.gradcheck(weigh, (drawn((total,)),))
        _check_two_calls(dispatch, transport)
        with pytest.raises(InputError, match="own rows must be float64"):
            fetch(dispatch, torch.zeros(own + 1, 2, dtype=torch.float64), rows)


def _check_two_calls(dispatch: Dispatch, transport: Transport) -> None:
    """A backward pass after another call gives what it gives before."""
    x = drawn((dispatch.num_own, 2), seed=transport.rank)
    first, second = (_asked(transport, dispatch.layout.num_rows, seed) for seed in (1, 2))
    (alone,) = torch.autograd.grad((fetch(dispatch, x, first) ** 2).sum(), x)
    late = (fetch(dispatch, x, first) ** 2).sum()
    before = dispatch.call
    fetch(dispatch, x, second)
    assert dispatch.call == before + 1
    torch.testing.assert_close(torch.autograd.grad(late, x)[0], alone)
    assert dispatch.call == before


def check_adjoint(transport: Transport) -> None:
    """<S x, y> = <x, S' y> to 1e-12, and at every level a backward pass moves the rows of the forward pass."""
    case = _large(transport.num_ranks)
    for way in ("direct", "hierarchical", "reduce", "cover", "relay"):
        with dist(case, way, transport) as matrix:
            x = drawn((matrix.product.gather.num_own, 3), seed=transport.rank)
            y = drawn((matrix.product.scatter.num_own, 3), seed=transport.rank + 100).detach()
            before = matrix.executed.rows_sent
            product = spmm(matrix, x)
            between = matrix.executed.rows_sent
            product.backward(y)
            after = matrix.executed.rows_sent
            forward, backward = (transport.reduce(part, "sum") for part in (between - before, after - between))
            np.testing.assert_array_equal(forward, backward, err_msg=way)
            sides = torch.stack([(product * y).sum(), (x * x.grad).sum()]).detach().numpy()
            left, right = transport.reduce(sides, "sum")
            assert abs(left - right) <= 1e-12 * max(abs(left), 1), way


def _large(num_ranks: int) -> Case:
    key = (num_ranks, "large")
    if key not in _CASES:
        layout = owners(120, num_ranks, seed=9)
        made = Case("large", sparse((120, 120), 0.05, np.float64, 7), Layouts(layout, layout), topologies(num_ranks)[2])
        _CASES.setdefault(key, made)
    return _CASES[key]


def check_gradient_sums(transport: Transport) -> None:
    """Gradients of replicated weights become sums, majorities of signs, or sums of what a mask keeps."""
    ranks = transport.num_ranks

    def weights(value: float) -> list[torch.nn.Parameter]:
        made = [torch.nn.Parameter(torch.zeros(2, 8)), torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))]
        made[0].grad = torch.full((2, 8), value)
        return made

    whole = weights(transport.rank + 1.0)
    sum_gradients(whole, transport)
    assert (whole[0].grad == ranks * (ranks + 1) / 2).all()
    assert (whole[1].grad == 0).all()
    signs = weights(2.0 if transport.rank == 1 else -1.0)
    sign = SignGradients(signs, transport)
    sign()
    assert (signs[0].grad == -1).all() or ranks == 2  # of whom each votes for another sign
    assert (abs(signs[0].grad) == 1).all()
    few = weights(0.0)[:1]
    few[0].grad[1, transport.rank % 8] = 4.0
    largest = TopKGradients(few, 1, transport)
    largest()
    assert few[0].grad[1, 0] == few[0].grad.sum() == 4.0 * (-(-ranks // 8))
    kept = weights(1.0)[:1]
    masked = MaskedGradients(kept, [torch.arange(16).reshape(2, 8) == 5], transport)
    masked()
    assert kept[0].grad.sum() == kept[0].grad[0, 5] == ranks
    for made in (sign, largest, masked):
        made.allreduce.close()


def check_refused(transport: Transport) -> None:
    """A tensor that cannot be exchanged is refused with a cure."""
    with dist(small(transport.num_ranks), "direct", transport) as matrix:
        own = matrix.product.gather.num_own
        with pytest.raises(InputError, match="bfloat16"):
            spmm(matrix, torch.zeros(own, 2, dtype=torch.bfloat16))
        with pytest.raises(InputError, match="host memory, not on meta"):
            as_array(torch.zeros(own, 2, device="meta"))


def check_compiled(transport: Transport) -> None:
    """A compiled step, without a break in its graph, gives what the plain one gives."""
    case = _large(transport.num_ranks)
    matrix = DistMatrix(
        case.rows(transport.rank), rank_product(case, "cover", transport.rank), case.topology, transport
    )
    exchange, module = GhostExchange.of(matrix), DistSparse(matrix)
    handles = torch.ops.sparsecomm

    rows = _asked(transport, 120, 0)
    dispatch = Dispatch(case.layouts.rows, case.topology, transport, width=3, dtype=np.float64)
    asking = handle_of(dispatch)

    def step(x: torch.Tensor) -> torch.Tensor:
        back = handles.combine(handles.fetch(x, rows, asking)[0].sin(), asking)[0]
        ghosts = handles.gather(x, exchange.handle)
        return (module(x.relu()).sin() * back).sum() + (handles.scatter(ghosts * 2, exchange.handle) * x).sum()

    results = []
    for run in (step, torch.compile(step, backend="aot_eager", fullgraph=True)):
        x = drawn((matrix.product.gather.num_own, 3), seed=transport.rank)
        loss = run(x)
        loss.backward()
        results.append((loss.detach(), x.grad))
    torch.testing.assert_close(results[1], results[0], rtol=1e-12, atol=1e-12)
    for one in (dispatch, exchange, matrix):
        one.close()


BODIES = (
    check_gather_and_scatter,
    check_spmm,
    check_two_steps,
    check_values,
    check_linear,
    check_dispatch,
    check_adjoint,
    check_gradient_sums,
    check_refused,
)
