"""Sparse matrices over the ranks of a job as PyTorch modules."""

from __future__ import annotations

from typing import Any

import torch
from scipy.sparse import csr_array

from sparsecomm.apps.gradients import gradients, multiply_keeping
from sparsecomm.apps.handles import handle_of, thing_of
from sparsecomm.apps.matrix import DistMatrix
from sparsecomm.apps.torch.arrays import as_array, as_tensor, without_bfloat16
from sparsecomm.apps.torch.device import multiplied
from sparsecomm.collectives.strategy import Strategy
from sparsecomm.layout import Layouts
from sparsecomm.topology import Topology


def spmm(matrix: DistMatrix, x: torch.Tensor, *, adjoint: bool = False) -> torch.Tensor:
    """Return this rank's rows of A @ X; the backward pass multiplies by A.H, every plan run the other way.

    Args:
        matrix: A; its values are constants here, see `DistSparse` for values that learn.
        x: (num_own_cols, k) or (num_own_cols,) rows; on a GPU the product is made there, on PyTorch's current
            stream, and so is that of the backward pass.
        adjoint: multiply by A.H, given (num_own_rows, k) rows; the backward pass then multiplies by A.

    Note: Collective over comm.
    """
    return _spmm(without_bfloat16(x), handle_of(matrix), adjoint)


def two_steps(matrix: DistMatrix, x: torch.Tensor) -> torch.Tensor:
    """Return this rank's rows of H @ (H.H @ X), the mix of nodes over hyperedges, without ever forming H @ H.H.

    Args:
        matrix: H, (nodes, hyperedges).
        x: (num_own_rows, k) or (num_own_rows,) rows of the nodes; see `spmm`.

    Note: Collective over comm.

    Source: Yadati et al., "HyperGCN", 2019, for the operator; multiplied from the right, rows of hyperedges travel.
    """
    return spmm(matrix, spmm(matrix, x, adjoint=True))


class DistSparse(torch.nn.Module):
    """A matrix over the ranks of a job: `module(x)` is A @ X.

    Args:
        matrix: A, kept open by whoever made it.
        values: (own nonzeros,) in CSR order, to be learned; None keeps those of the matrix as constants. Every rank
            owns its values: their gradients are whole and need no sum over ranks.
    """

    def __init__(self, matrix: DistMatrix, values: torch.Tensor | None = None) -> None:
        super().__init__()
        self.matrix, self.handle = matrix, handle_of(matrix)
        self.values = None if values is None else torch.nn.Parameter(values)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return this rank's rows of A @ X.

        Args:
            x: (num_own_cols, k) rows; see `spmm`. Where the values are learned, of their dtype and on the CPU.

        Note: Collective over comm.
        """
        x = without_bfloat16(x)
        if self.values is None:
            return _spmm(x, self.handle, False)
        return _spmm_values(self.values, x, self.handle)[0]

    def extra_repr(self) -> str:
        return repr(self.matrix)


class ModelParallelLinear(torch.nn.Module):
    """`y = x @ W.T + bias` with a sparse weight, input and output features spread over the ranks.

    Args:
        rows: (own output features, all input features), this rank's rows of W in new numbering; its nonzeros learn.
        layouts: who owns output features (rows) and input features (columns).
        topology: of the job.
        comm: an mpi4py communicator or a transport; None is the world.
        bias: whether to add one.
        strategy: of the product.
        width: rows of x that `auto` predicts for.

    Raises:
        InputError: on every rank, when the parts do not fit each other.

    Note: Collective over comm.
    """

    def __init__(
        self,
        rows: csr_array[Any],
        layouts: Layouts,
        topology: Topology,
        comm: object | None = None,
        *,
        bias: bool = True,
        strategy: str | Strategy = "auto",
        width: int = 64,
    ) -> None:
        super().__init__()
        self.matrix = DistMatrix.from_rows(rows, layouts, topology, comm, strategy=strategy, width=width)
        values = as_tensor(rows.data.copy())
        self.weight = DistSparse(self.matrix, values)
        self.bias = torch.nn.Parameter(torch.zeros(rows.shape[0], dtype=values.dtype)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (batch, own output features).

        Args:
            x: (batch, own input features); transposed for the exchange, without a copy where it is stored by columns.

        Note: Collective over comm.
        """
        y = self.weight(x.t()).t()
        return y if self.bias is None else y + self.bias

    def close(self) -> None:
        """Free communicators and buffers.

        Note: Collective over comm.
        """
        self.matrix.close()


@torch.library.custom_op("sparsecomm::spmm", mutates_args=(), schema="(Tensor x, int handle, bool adjoint) -> Tensor")
def _spmm(x: torch.Tensor, handle: int, adjoint: bool) -> torch.Tensor:
    matrix: DistMatrix = thing_of(handle)
    if not adjoint:
        return multiplied(matrix, x)
    # The adjoint of a real matrix is its transpose, which needs no conjugated copies.
    return multiplied(matrix.H if matrix.dtype.kind == "c" else matrix.T, x)


@_spmm.register_fake
def _(x: torch.Tensor, handle: int, adjoint: bool) -> torch.Tensor:
    product = thing_of(handle).product
    return x.new_empty((product.gather if adjoint else product.scatter).num_own, *x.shape[1:])


def _keep_adjoint(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    _, ctx.handle, ctx.adjoint = inputs


_spmm.register_autograd(
    lambda ctx, grad: (_spmm(grad, ctx.handle, not ctx.adjoint), None, None), setup_context=_keep_adjoint
)


@torch.library.custom_op(
    "sparsecomm::spmm_values", mutates_args=(), schema="(Tensor values, Tensor x, int handle) -> (Tensor, Tensor)"
)
def _spmm_values(values: torch.Tensor, x: torch.Tensor, handle: int) -> tuple[torch.Tensor, torch.Tensor]:
    matrix: DistMatrix = thing_of(handle)
    matrix.update_values(as_array(values))
    y, ghosts = multiply_keeping(matrix, as_array(x))
    return as_tensor(y), as_tensor(ghosts)


@torch.library.custom_op(
    "sparsecomm::spmm_values_grad",
    mutates_args=(),
    schema="(Tensor grad, Tensor values, Tensor x, Tensor ghosts, int handle) -> (Tensor, Tensor)",
)
def _spmm_values_grad(
    grad: torch.Tensor, values: torch.Tensor, x: torch.Tensor, ghosts: torch.Tensor, handle: int
) -> tuple[torch.Tensor, torch.Tensor]:
    matrix: DistMatrix = thing_of(handle)
    matrix.update_values(as_array(values))  # another forward pass may have set others since
    of_values, of_x = gradients(matrix, as_array(grad), as_array(x), as_array(ghosts))
    return as_tensor(of_values), as_tensor(of_x)


@_spmm_values.register_fake
def _(values: torch.Tensor, x: torch.Tensor, handle: int) -> tuple[torch.Tensor, torch.Tensor]:
    product = thing_of(handle).product
    return x.new_empty(product.scatter.num_own, x.shape[1]), x.new_empty(product.gather.num_ghost, x.shape[1])


@_spmm_values_grad.register_fake
def _(
    grad: torch.Tensor, values: torch.Tensor, x: torch.Tensor, ghosts: torch.Tensor, handle: int
) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(values), x.new_empty(x.shape)


def _keep_values(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    values, x, ctx.handle = inputs
    ctx.save_for_backward(values, x, output[1])
    ctx.mark_non_differentiable(output[1])


_spmm_values.register_autograd(
    lambda ctx, grad, _: (*_spmm_values_grad(grad.contiguous(), *ctx.saved_tensors, ctx.handle), None),
    setup_context=_keep_values,
)
