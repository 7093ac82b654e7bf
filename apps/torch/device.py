"""Tensors on GPUs: products are made where they lie, on PyTorch's current stream."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

import torch

from sparsecomm.apps.torch.arrays import as_array, as_tensor
from sparsecomm.arrays import DeviceArray, as_device, device_module


class Factor(Protocol):
    """A matrix that multiplies blocks in host memory and on GPUs."""

    def __matmul__(self, x: DeviceArray, /) -> DeviceArray:
        """Return the product, where the block lies."""


def lies_on_gpu(x: torch.Tensor) -> bool:
    """Say whether a tensor lies on a GPU that CUDA knows."""
    return bool(x.device.type == "cuda")


def multiplied(factor: Factor, x: torch.Tensor) -> torch.Tensor:
    """Return `factor @ x` as a tensor that lies where `x` does; memory of neither is copied.

    Raises:
        InputError: the tensor lies on a GPU and CuPy is not installed, or its rows do not fit the factor.

    Note: Collective over comm.
    """
    if not lies_on_gpu(x):
        return as_tensor(factor @ as_array(x))
    with stream_of(x):
        return torch.from_dlpack(factor @ as_device(x.detach().resolve_conj().contiguous()))


def stream_of(x: torch.Tensor) -> AbstractContextManager[object]:
    """Return what makes the stream on which PyTorch computes with a tensor the library's as well."""
    stream: AbstractContextManager[object] = device_module().cuda.ExternalStream(
        torch.cuda.current_stream(x.device).cuda_stream, x.device.index
    )
    return stream
