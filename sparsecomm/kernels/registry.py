"""Implementations of the local product, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy.typing as npt
from scipy.sparse import csr_array

from sparsecomm.errors import InputError
from sparsecomm.kernels.epilogue import Epilogue
from sparsecomm.kernels.plain import Plain
from sparsecomm.kernels.tiled import Tiled

Dense = npt.NDArray[Any]


class Kernel(Protocol):
    """One matrix, ready to be multiplied by one implementation."""

    def fits(self, x: Dense, out: Dense) -> bool:
        """Say whether dtypes and memory of these blocks suit it."""

    def multiply(
        self, x: Dense, out: Dense, first: int, last: int, *, keep: bool = False, epilogue: Epilogue | None = None
    ) -> None:
        """Compute `out = matrix[first:last] @ x`, added to what is there if `keep`; then the epilogue.

        Args:
            x: (n, k), not modified.
            out: (last - first, k), overlaps no other array.
        """


Maker = Callable[[csr_array[Any], int], Kernel]
_makers: dict[str, Maker] = {
    "scipy": lambda matrix, threads: Plain(matrix),
    "compiled": Tiled,
    "fused": lambda matrix, threads: Tiled(matrix, threads, fused=True),
}


def register(name: str, make: Maker) -> None:
    """Add an implementation: `make(matrix, threads)` returns a `Kernel`.

    Raises:
        ValueError: the name is taken.
    """
    if name in _makers or name == "auto":
        raise ValueError(f"an implementation named {name!r} exists already; give another name")
    _makers[name] = make


def get_maker(name: str) -> Maker:
    """Return what makes kernels of an implementation.

    Raises:
        InputError: there is none of that name.
    """
    if name not in _makers:
        raise InputError(f"no implementation {name!r} of the local product; there are {', '.join(names())}")
    return _makers[name]


def names() -> list[str]:
    """Return the names of all implementations."""
    return sorted(_makers)
