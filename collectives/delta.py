"""Messages that hold only the rows that changed since the run before: a bit for every row, then the changed rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sparsecomm.collectives.wire import Rows
from sparsecomm.errors import ExchangeError
from sparsecomm.typing import Bools

Bytes = npt.NDArray[np.uint8]


class _Delta:
    """The memory of one message, and what it holds.

    Args:
        rows: as they travel, all of them; C-contiguous.
        message: memory of `message_bytes(rows)`.
    """

    def __init__(self, rows: Rows, message: Bytes) -> None:
        self.message = message
        self._row_bytes = rows.nbytes // len(rows)
        self._rows = rows.reshape(len(rows), -1).view(_word(self._row_bytes))
        self._mask_bytes = _mask_bytes(rows)

    def num_bytes(self, num_rows: int) -> int:
        """Return the bytes of a message of `num_rows` changed rows."""
        return self._mask_bytes + num_rows * self._row_bytes

    def _changed_rows(self, num_rows: int) -> Rows:
        part = self.message[self._mask_bytes : self.num_bytes(num_rows)]
        return part.reshape(num_rows, self._row_bytes)


class DeltaSend(_Delta):
    """The sender's side."""

    _before: npt.NDArray[Any] | None = None

    def seal(self) -> int:
        """Fill the message with the rows that changed and return how many they are."""
        changed = self._changed()
        index = np.flatnonzero(changed)
        self.message[: self._mask_bytes] = np.packbits(changed)
        self._changed_rows(index.size)[...] = self._rows[index].view(np.uint8)
        return index.size

    def _changed(self) -> Bools:
        if self._before is None:
            self._before = self._rows.copy()
            return np.ones(len(self._rows), dtype=np.bool_)
        changed = np.asarray((self._rows != self._before).any(axis=1))
        self._before[changed] = self._rows[changed]
        return changed


class DeltaRecv(_Delta):
    """The receiver's side."""

    def open(self, num_bytes: int) -> int:
        """Write the rows of a message that came among the others and return how many they are.

        Raises:
            ExchangeError: the message does not hold as many rows as it says.
        """
        if num_bytes < self._mask_bytes:
            raise ExchangeError(f"{num_bytes} bytes are less than a bit for each of {len(self._rows)} rows")
        index = np.flatnonzero(np.unpackbits(self.message[: self._mask_bytes], count=len(self._rows)))
        if num_bytes != self.num_bytes(index.size):
            raise ExchangeError(f"{index.size} changed rows take {self.num_bytes(index.size)} bytes, not {num_bytes}")
        self._rows.view(np.uint8)[index] = self._changed_rows(index.size)
        return index.size


def message_bytes(rows: Rows) -> int:
    """Return the bytes of a message in which all rows have changed."""
    return _mask_bytes(rows) + rows.nbytes


def _mask_bytes(rows: Rows) -> int:
    return -(-len(rows) // 8)


def _word(row_bytes: int) -> np.dtype[Any]:
    """Return the widest integer that fits a row a whole number of times: fewer words compare faster."""
    return next(np.dtype(f"u{size}") for size in (8, 4, 2, 1) if row_bytes % size == 0)
