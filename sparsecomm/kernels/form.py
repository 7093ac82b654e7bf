"""What a compiled loop is specialised for: the tile of vector registers that a width is cut into."""

from __future__ import annotations

import platform
from functools import cache
from typing import NamedTuple

from llvmlite import binding  # type: ignore[import-untyped]


class Form(NamedTuple):
    """What a compiled loop is specialised for.

    Args:
        lanes: entries of a vector register.
        vectors: of a full tile.
        tail: vectors of the last tile; 0 where full tiles make up the width.
        masked: whether only part of the tail's last vector is used.
        prefetch: whether rows of X are asked for ahead of their use.
        finish: whether bias and bounds are applied to every row.
        fused: whether a product is rounded together with its sum, not before.
        uniform: whether all values of the matrix are the first one.
    """

    lanes: int
    vectors: int
    tail: int
    masked: bool
    prefetch: bool
    finish: bool
    fused: bool
    uniform: bool

    @staticmethod
    def of(
        width: int,
        itemsize: int,
        *,
        prefetch: bool = False,
        finish: bool = False,
        fused: bool = False,
        uniform: bool = False,
    ) -> Form:
        """Return the form for a width: the widest registers of this processor, half of them for sums."""
        num_bytes, registers = vector_unit()
        lanes = min(num_bytes // itemsize, 1 << max(0, width - 1).bit_length())
        total = -(-width // lanes)
        vectors = min(total, registers // 2)
        rest = width % (vectors * lanes)
        return Form(lanes, vectors, -(-rest // lanes), rest % lanes > 0, prefetch, finish, fused, uniform)

    def cut(self, width: int) -> tuple[int, int]:
        """Return full tiles, and entries in the last vector of the tail, that make up `width`."""
        full = self.lanes * self.vectors
        return width // full, width % full - self.lanes * (self.tail - 1) if self.tail else 0


@cache
def vector_unit() -> tuple[int, int]:
    """Return bytes and number of the vector registers of this processor."""
    features = binding.get_host_cpu_features()
    if features.get("avx512f"):
        return 64, 32
    return (32, 16) if features.get("avx") else (16, 16)


@cache
def fuses() -> bool:
    """Say whether this processor rounds a product together with its sum."""
    return platform.machine() not in ("x86_64", "AMD64") or bool(binding.get_host_cpu_features().get("fma"))
