"""Sparse exchanges inside PyTorch: autograd functions, modules and gradient sums over the ranks of a job."""

from __future__ import annotations

from sparsecomm.apps.ghost_exchange import GhostExchange
from sparsecomm.apps.torch.dispatch import combine, fetch
from sparsecomm.apps.torch.exchange import gather, scatter
from sparsecomm.apps.torch.gradients import MaskedGradients, SignGradients, TopKGradients, sum_gradients
from sparsecomm.apps.torch.lion import Lion, SignVotes
from sparsecomm.apps.torch.modules import DistSparse, ModelParallelLinear, spmm, two_steps

__all__ = [
    "DistSparse",
    "GhostExchange",
    "Lion",
    "MaskedGradients",
    "ModelParallelLinear",
    "SignGradients",
    "SignVotes",
    "TopKGradients",
    "combine",
    "fetch",
    "gather",
    "scatter",
    "spmm",
    "sum_gradients",
    "two_steps",
]
