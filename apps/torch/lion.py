"""The optimiser Lion, whose steps need only signs: one bit an entry between ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from sparsecomm.apps.torch.arrays import as_array, as_tensor
from sparsecomm.collectives.sign_allreduce import SignAllreduce
from sparsecomm.collectives.transport.base import Transport

Signs = Callable[[torch.Tensor], torch.Tensor]


class Lion(torch.optim.Optimizer):
    """Moves every weight by the learning rate, against the sign of a momentum.

    With `signs` left out, gradients must be the same on all ranks before a step. With `SignVotes`, every rank keeps
    a momentum of its own gradients, and the ranks vote on its signs.

    Args:
        params: weights or groups of them, the same on all ranks.
        lr: learning rate, about a tenth of that of Adam.
        weight_decay: share of a weight, times `lr`, that a step takes off it.
        betas: how much of the momentum is in the step, and how much of it stays.
        signs: turns the momenta of all weights, one after the other, into the directions of the step.

    Source: Chen et al., "Symbolic discovery of optimization algorithms", 2023, algorithm 2; with votes: Liu et al.,
        "Communication efficient distributed training with distributed Lion", 2024.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.99),
        signs: Signs = torch.sign,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "betas": betas})
        self._signs = signs

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Do one step; a weight without a gradient counts as one with a gradient of zero.

        Note: Collective over comm, where the ranks vote.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        weights = [(weight, group) for group in self.param_groups for weight in group["params"]]
        mixed = torch.cat([self._mixed(weight, group["betas"][0]).reshape(-1) for weight, group in weights])
        signs = self._signs(mixed).split([weight.numel() for weight, _ in weights])
        for (weight, group), sign in zip(weights, signs, strict=True):
            weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * sign.reshape(weight.shape))
            kept, gradient = group["betas"][1], self._gradient(weight)
            self.state[weight]["exp_avg"].mul_(kept).add_(gradient, alpha=1 - kept)
        return loss

    def _mixed(self, weight: torch.Tensor, beta: float) -> torch.Tensor:
        if "exp_avg" not in self.state[weight]:
            self.state[weight]["exp_avg"] = torch.zeros_like(weight)
        return torch.lerp(self._gradient(weight), self.state[weight]["exp_avg"], beta)

    def _gradient(self, weight: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(weight) if weight.grad is None else weight.grad


class SignVotes:
    """Makes `Lion` take the signs that most ranks give, one bit an entry; see `SignAllreduce`.

    Args:
        num_weights: entries of all weights together.
        transport: over the ranks.

    Note: Collective over comm.
    """

    def __init__(self, num_weights: int, transport: Transport) -> None:
        self.allreduce = SignAllreduce(transport, num_weights)

    def __call__(self, mixed: torch.Tensor) -> torch.Tensor:
        """Return +1 or -1 for every entry, of the same dtype.

        Note: Collective over comm.
        """
        return as_tensor(self.allreduce(as_array(mixed))).to(mixed.dtype)

    def close(self) -> None:
        """Free what was made.

        Note: Collective over comm.
        """
        self.allreduce.close()
