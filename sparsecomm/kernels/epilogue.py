"""What is done to a product on its way to memory: a bias, and bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsecomm.errors import InputError

Dense = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Epilogue:
    """`out = min(max(product + bias, lower), upper)`, applied to every row while it is still in the cache.

    Args:
        bias: a number, (m, 1) for one of each row, or (k,) for one of each column; None adds nothing.
        lower, upper: bounds of the result; NaN passes.

    A rectifier is `lower=0`; a layer of a sparse network, `Epilogue(bias, 0, 32)`.
    """

    bias: Dense | float | None = None
    lower: float = -np.inf
    upper: float = np.inf

    def biases(self, shape: tuple[int, int], dtype: np.dtype[Any]) -> tuple[Dense, Dense]:
        """Return the bias of rows and that of columns, one of them empty.

        Raises:
            InputError: the bias fits neither.
        """
        none = np.empty(0, dtype)
        if self.bias is None:
            return none, none
        bias = np.asarray(self.bias, dtype)
        if bias.shape == (shape[0], 1):
            return np.ascontiguousarray(bias[:, 0]), none
        if bias.ndim == 0 or bias.shape == (shape[1],):
            return none, np.ascontiguousarray(np.broadcast_to(bias, shape[1:]))
        raise InputError(
            f"a bias of shape {bias.shape} fits no result of shape {shape}; give a number, {(shape[0], 1)} for one of "
            f"each row or {shape[1:]} for one of each column"
        )

    def apply(self, out: Dense) -> None:
        """Do the same to a result that is already in memory."""
        if self.bias is not None:
            self.biases((out.shape[0], out.shape[1]), out.dtype)
            out += np.asarray(self.bias, out.dtype)
        if self.lower > -np.inf or self.upper < np.inf:
            np.clip(out, self.lower, self.upper, out=out)
