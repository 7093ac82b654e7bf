"""Sums over the ranks of the few entries that are largest, in a volume that neither ranks nor the array make larger."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sparsecomm.collectives.peers import check_same
from sparsecomm.collectives.transport.base import Transport, agreed
from sparsecomm.errors import InputError
from sparsecomm.table import Table
from sparsecomm.typing import Bools, IntGlobal

Values = npt.NDArray[Any]


class TopKAllreduce:
    """Adds up what the ranks find largest and gives all of them the `k` largest sums; what is left waits on its rank.

    Each rank takes the k largest entries of what it brings and what it holds back from before. It sends them to the
    owners of parts of the array, which add them up. The k largest sums go to all ranks. What did not get that far is
    held back and added to what the rank brings next. Entries of equal size are taken from the first on.

    Parts are cut where the ranks' entries, on average, are even; sums are spread anew where one rank has more than two
    of its shares of them. So no rank sends more than `3 k + P` entries, whatever P and the size of the array are.

    Args:
        transport: over the ranks.
        size: entries of an array.
        k: entries to take, at least 1 and at most `size`.
        dtype: float32 or float64.

    Attributes:
        held_back: (size,) what this rank has not got through yet.
        bytes_sent: by this rank since this was made, in entries and their places; counts and bounds, a few KiB a call
            whatever the size, not included.

    Raises:
        InputError: on every rank, when `k` or `dtype` is out of range.
        PlanError: on every rank, when arguments differ.

    Note: Collective over comm.

    Source: Li, Hoefler, "Near-optimal sparse allreduce for distributed deep learning" (Ok-Topk), 2022; the threshold
        is exact here, by a radix selection over counts.
    """

    def __init__(self, transport: Transport, size: int, k: int, dtype: npt.DTypeLike = np.float32) -> None:
        kind = np.dtype(dtype)
        agreed(transport, lambda: _check(size, k, kind))
        check_same(transport, {"size": size, "k": k, "dtype": kind.name})
        self._transport, self._k = transport.duplicate(), k
        self.held_back, self.bytes_sent = np.zeros(size, dtype=kind), 0

    def __call__(self, values: Values) -> Values:
        """Return the sums, (size,), zero but for at most k entries.

        Args:
            values: (size,) of the dtype.

        Raises:
            InputError: on every rank, when `values` of one does not fit.

        Note: Collective over comm.
        """
        agreed(self._transport, lambda: self._check_values(values))
        self.held_back += values
        taken = np.flatnonzero(_largest(np.abs(self.held_back), self._k))
        sums = self._chosen(self._added(self._entries(taken, self.held_back[taken])))
        sums = self._spread(sums)
        copies = np.repeat(np.arange(self._transport.num_ranks, dtype=np.int32), len(sums))
        everywhere = sums.take(np.tile(np.arange(len(sums)), self._transport.num_ranks))
        all_sums = self._move(everywhere, copies)
        result = np.zeros_like(self.held_back)
        result[all_sums["place"]] = all_sums["value"]
        self.held_back[np.intersect1d(taken, all_sums["place"], assume_unique=True)] = 0
        return result

    def close(self) -> None:
        """Free what was made.

        Note: Collective over comm.
        """
        self._transport.close()

    def _entries(self, place: IntGlobal, value: Values) -> Table:
        narrow = np.int32 if self.held_back.size < 2**31 else np.int64
        here = np.full(place.size, self._transport.rank, dtype=np.int32)
        return Table(here, {"place": place.astype(narrow), "value": value})

    def _added(self, entries: Table) -> Table:
        """Return this rank's part of the sums, by place."""
        ranks, place = self._transport.num_ranks, entries["place"]
        cuts = place[np.arange(1, ranks) * self._k // ranks].astype(np.int64)
        bounds = self._transport.reduce(cuts, "sum") // ranks
        arrived = self._move(entries, np.searchsorted(bounds, place, side="right").astype(np.int32))
        places, inverse = np.unique(arrived["place"], return_inverse=True)
        sums = np.zeros(places.size, dtype=self.held_back.dtype)
        np.add.at(sums, inverse, arrived["value"])
        return self._entries(places, sums)

    def _chosen(self, sums: Table) -> Table:
        """Return those of this rank's sums that are among the k largest of all ranks."""
        keys = np.abs(sums["value"]).view(f"u{self.held_back.dtype.itemsize}")
        least, num_equal = self._least_key(keys)
        equal = keys == least
        before = self._transport.collect(np.array([equal.sum()], dtype=np.int64))[: self._transport.rank].sum()
        return sums.take((keys > least) | (equal & (np.cumsum(equal) + before <= num_equal)))

    def _least_key(self, keys: npt.NDArray[Any]) -> tuple[int, int]:
        """Return the k-th largest key of all ranks, and how many that are equal to it are among the k largest."""
        wanted, prefix = self._k, 0
        for shift in range(8 * keys.itemsize - 8, -1, -8):
            digits = (keys & keys.dtype.type(255 << shift)) >> keys.dtype.type(shift)
            counts = self._transport.reduce(np.bincount(digits.astype(np.int64), minlength=256), "sum")
            from_top = np.cumsum(counts[::-1])
            digit = 255 - int(np.searchsorted(from_top, min(wanted, from_top[-1])))
            wanted -= int(counts[digit + 1 :].sum())
            prefix |= digit << shift
            keys = keys[digits == digit]
        return prefix, wanted

    def _spread(self, sums: Table) -> Table:
        """Give every rank as many sums as the others, where some rank has more than twice as many."""
        counts, ranks = self._transport.collect(np.array([len(sums)], dtype=np.int64)), self._transport.num_ranks
        if counts.max() * ranks <= 2 * counts.sum():
            return sums
        place = np.arange(len(sums)) + counts[: self._transport.rank].sum()
        return self._move(sums, (place * ranks // counts.sum()).astype(np.int32))

    def _move(self, entries: Table, to_rank: npt.NDArray[np.int32]) -> Table:
        away = int((to_rank != self._transport.rank).sum())
        self.bytes_sent += away * (entries["place"].itemsize + entries["value"].itemsize)
        return self._transport.route(entries, to_rank)

    def _check_values(self, values: Values) -> None:
        if values.shape != self.held_back.shape or values.dtype != self.held_back.dtype:
            expected = f"{self.held_back.dtype} {self.held_back.shape}"
            raise InputError(f"the values must be {expected}, not {values.dtype} {values.shape}")


def _largest(magnitudes: Values, k: int) -> Bools:
    """Return which k entries are largest, the first ones where they are equal."""
    least = np.partition(magnitudes, magnitudes.size - k)[magnitudes.size - k]
    above, equal = magnitudes > least, magnitudes == least
    return np.asarray(above | (equal & (np.cumsum(equal) <= k - above.sum())))


def _check(size: int, k: int, dtype: np.dtype[Any]) -> None:
    if not 1 <= k <= size:
        raise InputError(f"{k} of {size} entries cannot be taken; give k from 1 to the size")
    if dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise InputError(f"the entries must be float32 or float64, not {dtype}")
