"""64-bit hashes of integer columns that can be added up in any order and on any rank."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def splitmix(state: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return the splitmix64 finaliser of every entry.

    Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
    """
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def hash_rows(columns: list[npt.NDArray[Any]]) -> npt.NDArray[np.uint64]:
    """Return a 64-bit hash of every row of `columns`; equal rows hash alike wherever they stand."""
    state = np.full(columns[0].size, 0x9E3779B97F4A7C15, dtype=np.uint64)
    for column in columns:
        state = splitmix(state * np.uint64(0x9E3779B97F4A7C15) + column.astype(np.uint64))
    return state


def hash_table(columns: list[npt.NDArray[Any]]) -> int:
    """Return the sum of the hashes of rows that also know their place, modulo 2**64."""
    placed = hash_rows([np.arange(columns[0].size), *columns])
    return int(np.add.reduce(placed, dtype=np.uint64))
