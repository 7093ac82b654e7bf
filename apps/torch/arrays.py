"""CPU tensors as numpy arrays and back, over the same memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sparsecomm.errors import InputError


def as_array(x: torch.Tensor) -> npt.NDArray[Any]:
    """Return the memory of a tensor as an array; one that is not C-contiguous is copied.

    Raises:
        InputError: the tensor is not on the CPU, or numpy has no such dtype.
    """
    if x.device.type != "cpu":
        raise InputError(f"the exchange moves tensors in host memory, not on {x.device}; pass x.cpu()")
    if x.dtype == torch.bfloat16:
        raise InputError("bfloat16 rows cannot be exchanged; pass x.float() and set wire_dtype='bfloat16' to send less")
    return np.asarray(x.detach().resolve_conj().contiguous().numpy())


def without_bfloat16(x: torch.Tensor) -> torch.Tensor:
    """Return a tensor that autocast made bfloat16, which numpy does not have, as float32; others as they are."""
    return x.float() if x.dtype == torch.bfloat16 and torch.is_autocast_enabled(x.device.type) else x


def as_tensor(x: npt.NDArray[Any]) -> torch.Tensor:
    """Return a tensor over the memory of an array."""
    return torch.from_numpy(x)
