"""Gradients of weights that every rank holds a copy of, made the same on all ranks."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from sparsecomm.apps.torch.arrays import as_array, as_tensor
from sparsecomm.collectives.sign_allreduce import SignAllreduce
from sparsecomm.collectives.sum_allreduce import MaskedAllreduce
from sparsecomm.collectives.topk_allreduce import TopKAllreduce
from sparsecomm.collectives.transport.base import Transport


def sum_gradients(parameters: Iterable[torch.nn.Parameter], transport: Transport) -> None:
    """Replace the gradients of replicated weights by their sums over the ranks, in one message for each dtype.

    Args:
        parameters: the same on all ranks, in the same order; one without a gradient counts as zero. Gradients on
            GPUs go through host memory.
        transport: over the ranks, see `open_transport`.

    Note: Collective over comm.
    """
    by_dtype: dict[torch.dtype, list[torch.nn.Parameter]] = {}
    for parameter in parameters:
        by_dtype.setdefault(parameter.dtype, []).append(parameter)
    for group in by_dtype.values():
        _put(group, as_tensor(transport.reduce(as_array(_flat(group).cpu()), "sum")))


class SignGradients:
    """Replaces gradients by the signs that most ranks give them, one bit each on the wire; see `SignAllreduce`.

    Args:
        parameters: the same on all ranks, in the same order.
        transport: over the ranks.

    Note: Collective over comm.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], transport: Transport) -> None:
        self._parameters = list(parameters)
        self.allreduce = SignAllreduce(transport, sum(p.numel() for p in self._parameters))

    def __call__(self) -> None:
        """Replace the gradients.

        Note: Collective over comm.
        """
        _put(self._parameters, as_tensor(self.allreduce(as_array(_flat(self._parameters)))))


class MaskedGradients:
    """Sums gradients over the ranks where a mask keeps the weight; elsewhere they become zero and do not travel.

    Args:
        parameters: of one dtype, the same on all ranks, in the same order.
        masks: what is kept of each, bool, of its shape.
        transport: over the ranks.

    Note: Collective over comm.
    """

    def __init__(
        self, parameters: Iterable[torch.nn.Parameter], masks: Iterable[torch.Tensor], transport: Transport
    ) -> None:
        self._parameters = list(parameters)
        kept = np.concatenate([as_array(mask).reshape(-1) for mask in masks])
        self.allreduce = MaskedAllreduce(transport, kept, as_array(self._parameters[0]).dtype)

    def __call__(self) -> None:
        """Replace the gradients.

        Note: Collective over comm.
        """
        _put(self._parameters, as_tensor(self.allreduce(as_array(_flat(self._parameters)))))


class TopKGradients:
    """Sums the k entries of the gradients that are largest; the others become zero and wait; see `TopKAllreduce`.

    Args:
        parameters: of one dtype, the same on all ranks, in the same order.
        k: entries to take of all together.
        transport: over the ranks.

    Note: Collective over comm.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], k: int, transport: Transport) -> None:
        self._parameters = list(parameters)
        size = sum(p.numel() for p in self._parameters)
        self.allreduce = TopKAllreduce(transport, size, k, as_array(self._parameters[0]).dtype)

    def __call__(self) -> None:
        """Replace the gradients.

        Note: Collective over comm.
        """
        _put(self._parameters, as_tensor(self.allreduce(as_array(_flat(self._parameters)))))


def _flat(parameters: list[torch.nn.Parameter]) -> torch.Tensor:
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    return torch.cat([grad.reshape(-1) for grad in grads])


def _put(parameters: list[torch.nn.Parameter], flat: torch.Tensor) -> None:
    for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = part.reshape(parameter.shape).to(parameter.device, parameter.dtype)
