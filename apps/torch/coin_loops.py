"""Dropout of entries in one pass over them, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sparsecomm.compiled import compiled


@compiled
def drop(
    hashes: npt.NDArray[np.uint64],
    key: np.uint64,
    least: np.uint64,
    scale: Any,
    values: npt.NDArray[Any],
    out: npt.NDArray[Any],
) -> None:
    """Set `out[i]` to `scale * values[i]` where the splitmix64 of `hashes[i] ^ key` is at least `least`, else to 0."""
    for i in range(values.size):
        state = hashes[i] ^ key
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
        out[i] = scale * values[i] if state >= least else values.dtype.type(0)
