"""How a product goes through a matrix: compiled loops, and the rows and columns that each has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsecomm.kernels.crew import crew_of
from sparsecomm.kernels.frame import LINE, Words, address, new_frame

Dense = npt.NDArray[Any]
Parts = Sequence[tuple[Any, tuple[int, ...]]]


class Walk:
    """A product of some rows and some width, ready to run.

    Args:
        parts: each a compiled loop, and the words of its line after the first.
        threads: that share them.
    """

    def __init__(self, parts: Parts, threads: int) -> None:
        self._loops, self._table = [loop for loop, _ in parts], np.zeros((len(parts), LINE), np.int64)
        for words, (loop, line) in zip(self._table, parts, strict=True):
            words[: 1 + len(line)] = loop.address, *line
        self.frame, self._held = new_frame(self._table), dict[int, npt.NDArray[Any]]()
        self._crew = crew_of(threads)

    def hold(self, arrays: dict[int, npt.NDArray[Any]]) -> None:
        """Write the addresses of arrays into these words of the frame, and keep them where they are."""
        self._held.update(arrays)
        for word, array in arrays.items():
            self.frame[word] = address(array)

    def run(self, x: Dense, out: Dense, keep: bool, frame: Words | None = None) -> None:
        """Run all parts on these blocks; the result is added to `out` if `keep`."""
        self._crew.run(self.frame if frame is None else frame, len(self._loops), x, out, keep)
