"""Loops that round rows for the wire and read them back."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sparsecomm.compiled import compiled
from sparsecomm.typing import IntGlobal

Floats = npt.NDArray[np.floating[Any]]


@compiled
def pack_bfloat16(slots: Floats, index: IntGlobal, rows: npt.NDArray[np.uint16]) -> None:
    for i in range(index.size):
        slot = index[i]
        for j in range(rows.shape[1]):
            bits = np.float32(slots[slot, j]).view(np.uint32)
            if bits & np.uint32(0x7FFFFFFF) > np.uint32(0x7F800000):  # NaN: rounding up could make it infinite
                rows[i, j] = np.uint16((bits >> np.uint32(16)) | np.uint32(0x40))
            else:
                half = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
                rows[i, j] = np.uint16((bits + half) >> np.uint32(16))


@compiled
def unpack_bfloat16(rows: npt.NDArray[np.uint16], slots: Floats) -> None:
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            slots[i, j] = np.uint32(np.uint32(rows[i, j]) << np.uint32(16)).view(np.float32)


@compiled
def _scale_of(largest: float) -> np.float32:
    scale = np.float32(largest / 127)
    if scale * np.float32(127) < largest:  # rounded down: the largest must stay within 127
        return np.float32(scale * np.float32(1.0000002) + np.float32(1e-45))
    return scale if scale < np.float32(np.inf) else np.float32(np.nan)


@compiled
def pack_int8(slots: Floats, index: IntGlobal, rows: npt.NDArray[np.uint8]) -> None:
    """Write the multiples of each row, then the four bytes of its scale."""
    width = rows.shape[1] - 4
    for i in range(index.size):
        slot = index[i]
        largest = abs(slots[slot, 0])
        for j in range(1, width):
            size = abs(slots[slot, j])
            if size > largest or size != size:  # a NaN stays: nothing is larger
                largest = size
        scale = _scale_of(largest)
        for j in range(width):
            ratio = np.rint(slots[slot, j] / scale) if scale > 0 else 0.0
            rows[i, j] = np.uint8(np.int8(ratio))
        bits = np.float32(scale).view(np.uint32)
        for j in range(4):
            rows[i, width + j] = np.uint8((bits >> np.uint32(8 * j)) & np.uint32(0xFF))


@compiled
def unpack_int8(rows: npt.NDArray[np.uint8], slots: Floats) -> None:
    width = rows.shape[1] - 4
    for i in range(rows.shape[0]):
        bits = np.uint32(0)
        for j in range(4):
            bits |= np.uint32(rows[i, width + j]) << np.uint32(8 * j)
        scale = np.uint32(bits).view(np.float32)
        for j in range(width):
            slots[i, j] = np.float32(np.int8(rows[i, j])) * scale
