"""What a compiled loop is told: numbers in memory, which threads read that never enter the interpreter.

A frame holds what all parts of a product share, among it the address of a table with a line for each part.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.int64]

# Words of a frame. Nonzeros are how many values there are, or a packed row has. Full to columns are of slices, columns
# the first of each; the rest are of packed weights.
PARTS: Final = 0
STARTS: Final = 1
INDICES: Final = 2
VALUES: Final = 3
NONZEROS: Final = 4
X: Final = 5
X_STRIDE: Final = 6
OUT: Final = 7
OUT_STRIDE: Final = 8
KEEP: Final = 9
AHEAD: Final = 10
ROW_BIAS: Final = 11
ROW_BIAS_SIZE: Final = 12
COLUMN_BIAS: Final = 13
COLUMN_BIAS_SIZE: Final = 14
LOWER: Final = 15
UPPER: Final = 16
FULL: Final = 17
LENGTHS: Final = 18
ROWS: Final = 19
COLUMNS: Final = 20
KEPT: Final = 21
GROUP: Final = 22
BITS: Final = 23
SHARING: Final = 24
WIDTH: Final = 25
SIZE: Final = 26

# Words of a line of the table.
ENTRY: Final = 0
FIRST: Final = 1
LAST: Final = 2
LEFT: Final = 3
TILES: Final = 4
REST: Final = 5
LINE: Final = 6

# Words of the mail of a crew, apart by 128 bytes, since processors fetch lines by two.
CLAIM: Final = 0
DONE: Final = 16
LEADER: Final = 32
AWAKE: Final = 48
FRAME: Final = 64
MAIL: Final = 80


def address(array: npt.NDArray[Any]) -> int:
    """Return where the first entry of an array lies."""
    place: int = array.__array_interface__["data"][0]
    return place


def new_frame(table: Words) -> Words:
    """Return a frame for the parts of a table, which has to stay where it is."""
    frame = np.zeros(SIZE, np.int64)
    frame[PARTS] = address(table)
    return frame


def set_finish(frame: Words, row_bias: npt.NDArray[Any], column_bias: npt.NDArray[Any], bounds: list[float]) -> None:
    """Tell a frame the biases, which have to stay where they are, and the bounds."""
    frame[ROW_BIAS], frame[ROW_BIAS_SIZE] = address(row_bias), row_bias.size
    frame[COLUMN_BIAS], frame[COLUMN_BIAS_SIZE] = address(column_bias), column_bias.size
    frame[[LOWER, UPPER]] = np.array(bounds, np.float64).view(np.int64)
