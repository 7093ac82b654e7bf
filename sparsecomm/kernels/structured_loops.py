"""The compiled loops of packed weights; imported where they run.

What they are written with comes from other files, whose date numba does not look at: touch this one when those change.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import njit

from sparsecomm.kernels.form import Form
from sparsecomm.kernels.loops import gather_tile


@cache
def structured_rows(form: Form) -> Callable[..., None]:
    """Return the loop `out[first:last] = weights @ x` over packed weights; see `Structured`.

    The loop takes values, offsets, columns, kept, group, bits, v, x, out, first, last, tiles, rest: `kept` entries of
    every `group` columns, whose offsets have so many `bits`; rows that share columns, or 0; values of 16 bits are
    float16.
    """
    lanes, vectors, tail, masked, *_ = form
    full, last_vectors = lanes * vectors, max(tail, 1)

    @njit(nogil=True, cache=True)
    def loop(
        values: Any, offsets: Any, columns: Any, kept: int, group: int, bits: int, v: int, x: Any, out: Any, first: int,
        last: int, tiles: int, rest: int,
    ) -> None:  # fmt: skip
        indices, ones = np.empty(values.shape[1], np.int32), np.uint32((1 << bits) - 1)
        for row in range(first, last):
            end = place = bit = 0
            for start in range(0, values.shape[1] // kept * group, group):
                for _ in range(kept):
                    word = np.uint32(offsets[row, bit >> 3])
                    if (bit & 7) + bits > 8:
                        word |= np.uint32(offsets[row, (bit >> 3) + 1]) << np.uint32(8)
                    column = start + np.int64((word >> np.uint32(bit & 7)) & ones)
                    if v:
                        column = columns[row // v, column]
                    indices[place] = column
                    place += 1
                    bit += bits
                    if column < x.shape[0]:
                        end = place
            data = values[row]
            for tile in range(tiles):
                gather_tile(  # type: ignore[call-arg]
                    data, indices, 0, end, x, out, row, tile * full, False, 0, 0, lanes, vectors, False, False, False,
                    False,
                )  # fmt: skip
            if tail:
                gather_tile(  # type: ignore[call-arg]
                    data, indices, 0, end, x, out, row, tiles * full, False, rest, 0, lanes, last_vectors, masked,
                    False, False, False,
                )  # fmt: skip

    return loop
