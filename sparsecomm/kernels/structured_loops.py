"""The compiled loops of packed weights; imported where they run.

What they are written with comes from other files, whose date numba does not look at: touch this one when those change.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import cfunc

from sparsecomm.kernels import frame as word
from sparsecomm.kernels.form import Form
from sparsecomm.kernels.frame_reader import array_at, block_at
from sparsecomm.kernels.loops import ENTRY, gather_tile


@cache
def structured_rows(form: Form, entry: str, stored: str) -> Any:
    """Return the loop `out[first:last] = weights @ x` over packed weights; see `Structured`.

    It takes the addresses of a frame and of a part's line. Entries of X are of the type numpy calls `entry`, those of
    the weights `stored`, where `H` is float16. Columns beyond the `WIDTH` of the frame are padding.
    """
    lanes, vectors, tail, masked, *_ = form
    full, last_vectors, itemsize = lanes * vectors, max(tail, 1), np.dtype(stored).itemsize

    @cfunc(ENTRY, cache=True)
    def loop(frame: int, line: int) -> None:
        words: Any = array_at(frame, word.SIZE, "q")  # type: ignore[call-arg]
        part: Any = array_at(line, word.LINE, "q")
        x = block_at(words[word.X], words[word.X_STRIDE], entry)
        out = block_at(words[word.OUT], words[word.OUT_STRIDE], entry)
        size, kept, group, bits = words[word.NONZEROS], words[word.KEPT], words[word.GROUP], words[word.BITS]
        sharing, tiles, rest = words[word.SHARING], part[word.TILES], part[word.REST]
        row_bytes, groups = (size * bits + 7) >> 3, size // kept
        indices, ones = np.empty(size, np.int32), np.uint32((1 << bits) - 1)
        for row in range(part[word.FIRST], part[word.LAST]):
            offsets = array_at(words[word.INDICES] + row * row_bytes, row_bytes, "B")
            block = row // sharing if sharing else 0
            shared = array_at(words[word.COLUMNS] + 4 * block * groups * group, groups * group, "i")
            end = place = bit = 0
            for start in range(0, groups * group, group):
                for _ in range(kept):
                    packed = np.uint32(offsets[bit >> 3])
                    if (bit & 7) + bits > 8:
                        packed |= np.uint32(offsets[(bit >> 3) + 1]) << np.uint32(8)
                    column = start + np.int64((packed >> np.uint32(bit & 7)) & ones)
                    if sharing:
                        column = shared[column]
                    indices[place] = column
                    place += 1
                    bit += bits
                    if column < words[word.WIDTH]:
                        end = place
            data = array_at(words[word.VALUES] + row * size * itemsize, size, stored)
            for tile in range(tiles):
                gather_tile(
                    data, indices, 0, end, x, out, row, tile * full, False, 0, 0, lanes, vectors, False, False, False,
                    False,
                )  # fmt: skip
            if tail:
                gather_tile(
                    data, indices, 0, end, x, out, row, tiles * full, False, rest, 0, lanes, last_vectors, masked,
                    False, False, False,
                )  # fmt: skip

    return loop
