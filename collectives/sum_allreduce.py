"""Sums over the ranks, of whole arrays or of the entries that a mask keeps, in one order on every MPI."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sparsecomm.collectives.transport.base import Transport, agreed
from sparsecomm.collectives.two_rounds import TwoRounds
from sparsecomm.errors import InputError
from sparsecomm.hashing import hash_table

Values = npt.NDArray[Any]


class SumAllreduce:
    """Sums arrays over the ranks, in the order of the ranks: the result is the same, bit by bit, on all and each time.

    Args:
        transport: over the ranks.
        size: entries of an array.
        dtype: of the entries.

    Raises:
        PlanError: on every rank, when size or dtype differ.

    Note: Collective over comm.
    """

    def __init__(self, transport: Transport, size: int, dtype: npt.DTypeLike) -> None:
        self._rounds = TwoRounds(transport, size, dtype)

    @property
    def bytes_sent(self) -> int:
        """Bytes that this rank has sent since this was made."""
        return self._rounds.bytes_sent

    def __call__(self, values: Values) -> Values:
        """Return the sums, valid until the next call.

        Args:
            values: (size,) of the dtype.

        Note: Collective over comm.
        """
        self._rounds.given[...] = values
        return self._rounds.run(_sum)

    def close(self) -> None:
        """Free what was made.

        Note: Collective over comm.
        """
        self._rounds.close()


class MaskedAllreduce:
    """Sums the entries that a mask keeps, an N:M mask for example; the others neither travel nor count.

    Args:
        transport: over the ranks.
        mask: (size,) bool, the same on all ranks.
        dtype: of the entries.

    Raises:
        InputError: on every rank, when the mask is not one of bools.
        PlanError: on every rank, when mask or dtype differ.

    Note: Collective over comm.
    """

    def __init__(self, transport: Transport, mask: npt.NDArray[np.bool_], dtype: npt.DTypeLike) -> None:
        agreed(transport, lambda: _check_mask(mask))
        self._kept, self._size = np.flatnonzero(mask), mask.size
        self._rounds = TwoRounds(transport, self._kept.size, dtype, mask=hash_table([self._kept]), entries=mask.size)

    @property
    def bytes_sent(self) -> int:
        """Bytes that this rank has sent since this was made."""
        return self._rounds.bytes_sent

    def __call__(self, values: Values) -> Values:
        """Return the sums, zero where the mask keeps nothing.

        Args:
            values: (size,) of the dtype.

        Note: Collective over comm.
        """
        np.take(values, self._kept, out=self._rounds.given)
        sums = np.zeros(self._size, dtype=self._rounds.given.dtype)
        sums[self._kept] = self._rounds.run(_sum)
        return sums

    def close(self) -> None:
        """Free what was made.

        Note: Collective over comm.
        """
        self._rounds.close()


def _sum(rows: Values) -> Values:
    """Add up from the first rank to the last: numpy's own sum may pair rows in another order."""
    total: Values = rows[0].copy()
    for row in rows[1:]:
        total += row
    return total


def _check_mask(mask: npt.NDArray[np.bool_]) -> None:
    if mask.ndim != 1 or mask.dtype != np.bool_:
        raise InputError(f"a mask must be a bool array of one dimension, not {mask.dtype} of shape {mask.shape}")
