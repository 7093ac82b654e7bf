"""Columns of row numbers in few bytes: offsets from the least, a bitmap, or nothing where they are a whole range."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np

from sparsecomm.collectives.transport.base import Bytes
from sparsecomm.errors import ExchangeError
from sparsecomm.typing import IntGlobal


class Code(IntEnum):
    """How numbers travel; of an offset code the value is its bytes a number."""

    RANGE = 0
    OFFSETS_8 = 1
    OFFSETS_16 = 2
    OFFSETS_32 = 4
    PLAIN = 8
    BITMAP = 16


_OFFSETS: Final = {Code.OFFSETS_8: np.uint8, Code.OFFSETS_16: np.uint16, Code.OFFSETS_32: np.uint32}


class Encoded(NamedTuple):
    """Numbers as they travel.

    Args:
        code: what the bytes are.
        low: the least number, or 0.
        data: uint8.
    """

    code: Code
    low: int
    data: Bytes


def encode(numbers: IntGlobal) -> Encoded:
    """Return numbers in the code that takes the fewest bytes.

    A bitmap (a bit for every number from the least to the largest) and a range (no bytes) need numbers that ascend
    without repeats; offsets take any.

    Args:
        numbers: (n,) int64.
    """
    if numbers.size == 0:
        return Encoded(Code.RANGE, 0, np.empty(0, dtype=np.uint8))
    low, high = int(numbers.min()), int(numbers.max())
    code = _offset_code(high - low)
    span, ascends = high - low + 1, bool((numbers[1:] > numbers[:-1]).all())
    if ascends and span == numbers.size:
        return Encoded(Code.RANGE, low, np.empty(0, dtype=np.uint8))
    if ascends and -(-span // 8) < int(code) * numbers.size:
        present = np.zeros(span, dtype=np.bool_)
        present[numbers - low] = True
        return Encoded(Code.BITMAP, low, np.packbits(present))
    if code is Code.PLAIN:
        return Encoded(code, 0, np.ascontiguousarray(numbers, dtype=np.int64).view(np.uint8))
    return Encoded(code, low, (numbers - low).astype(_OFFSETS[code]).view(np.uint8))


def decode(encoded: Encoded, num_rows: int) -> IntGlobal:
    """Return the (num_rows,) int64 numbers that were encoded.

    Raises:
        ExchangeError: the bytes hold another number of numbers.
    """
    code, low, data = encoded
    if code is Code.RANGE:
        return np.arange(low, low + num_rows, dtype=np.int64)
    if code is Code.BITMAP:
        numbers = np.flatnonzero(np.unpackbits(data)) + low
    elif code is Code.PLAIN:
        numbers = data.view(np.int64)
    else:
        numbers = data.view(_OFFSETS[code]) + np.int64(low)
    if numbers.size != num_rows:
        raise ExchangeError(f"{numbers.size} row numbers came where {num_rows} were announced")
    return numbers


def _offset_code(largest: int) -> Code:
    for code in (Code.OFFSETS_8, Code.OFFSETS_16, Code.OFFSETS_32):
        if largest < 1 << (8 * int(code)):
            return code
    return Code.PLAIN
