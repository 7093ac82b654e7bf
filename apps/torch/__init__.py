"""Sparse exchanges inside PyTorch: autograd functions, modules and gradient sums over the ranks of a job."""

from __future__ import annotations

from sparsecomm.apps.torch.exchange import GhostExchange, gather, scatter
from sparsecomm.apps.torch.gradients import MaskedGradients, SignGradients, sum_gradients
from sparsecomm.apps.torch.modules import DistSparse, ModelParallelLinear, spmm

__all__ = [
    "DistSparse",
    "GhostExchange",
    "MaskedGradients",
    "ModelParallelLinear",
    "SignGradients",
    "gather",
    "scatter",
    "spmm",
    "sum_gradients",
]
