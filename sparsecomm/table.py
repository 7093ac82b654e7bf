"""Column tables whose rows live on ranks, and the one thing that moves them: `route`.

A planner is local steps on tables. Offline one table holds the rows of all ranks; in a job every process holds the
rows of its own rank. The steps are the same, because each sorts and compares by (rank, ...) first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from sparsecomm.typing import Bools, IntGlobal, IntRank

Column = npt.NDArray[Any]

_BLOCK: Final = 1 << 15

PART_ROWS: Final = 1 << 18
"""About how many rows of a table are worked on at a time, so that what is made on the way stays in a core's cache."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Equally long columns, and for each row the rank it lives on.

    Args:
        rank: (n,) int32, the rank that holds each row.
        columns: name -> (n,) or (n, k) array.
    """

    rank: IntRank
    columns: dict[str, Column]

    def __len__(self) -> int:
        return self.rank.size

    def __getitem__(self, name: str) -> Column:
        return self.columns[name]

    def take(self, index: IntGlobal | Bools) -> Table:
        """Return the rows `index` (positions or a mask)."""
        if index.dtype == np.bool_:
            index = np.flatnonzero(index)  # positions are found once for all columns, and without a branch for each
        return Table(self.rank[index], {name: column[index] for name, column in self.columns.items()})

    def part(self, rows: slice) -> Table:
        """Return neighbouring rows, as views."""
        return Table(self.rank[rows], {name: column[rows] for name, column in self.columns.items()})

    def with_columns(self, **columns: Column) -> Table:
        """Return this table with more (or other) columns of the same length."""
        return Table(self.rank, {**self.columns, **columns})

    def only(self, *names: str) -> Table:
        return Table(self.rank, {name: self.columns[name] for name in names})

    def sort(self, *keys: str) -> Table:
        """Return the rows ordered by rank, then by `keys`; equal rows keep their order."""
        columns = [self.rank, *(self.columns[key] for key in keys)]
        packing = _packing(columns) if set(keys) == set(self.columns) else None
        if packing is None:
            order = _order_unless_sorted(columns)
            return self if order is None else self.take(order)
        packed = _pack(columns, packing)
        if (packed[1:] >= packed[:-1]).all():
            return self
        _sort_packed(packed, self.rank)  # equal rows are equal in all columns: no need to know where they were
        rank, *columns = _unpack(packed, columns, packing)
        return Table(rank, dict(zip(keys, columns, strict=True)))

    def unique(self, *keys: str) -> Table:
        """Return the first row of every distinct (rank, `keys`), in that order."""
        table = self.sort(*keys)
        return table.take(run_starts([table.rank, *(table.columns[key] for key in keys)]))

    def distinct(self, *keys: str) -> Table:
        """Return the distinct (rank, `keys`), in that order, without the other columns."""
        rank, *columns = distinct([self.rank, *(self.columns[key] for key in keys)])
        return Table(rank, dict(zip(keys, columns, strict=True)))

    @staticmethod
    def concat(tables: Sequence[Table]) -> Table:
        if len(tables) == 1:
            return tables[0]
        names = tables[0].columns
        columns = {name: np.concatenate([table.columns[name] for table in tables]) for name in names}
        return Table(np.concatenate([table.rank for table in tables]), columns)


class Router(Protocol):
    """Moves tables between ranks: in one process for all of them, or between the processes of a job."""

    @property
    def num_ranks(self) -> int:
        """How many ranks there are in all."""

    @property
    def held(self) -> range:
        """The ranks whose rows this process holds: all of them offline, one in a job."""

    def route(self, table: Table, to_rank: IntRank) -> Table:
        """Move row i to rank `to_rank[i]`; rows arrive in the order (rank, rank they came from, place there).

        Note: Collective over comm.
        """

    def reduce(self, values: Column, op: Literal["sum", "max"]) -> Column:
        """Return the elementwise sum or maximum of `values` over the processes, on all of them.

        Note: Collective over comm.
        """

    def collect(self, values: IntGlobal) -> IntGlobal:
        """Return (num_ranks,) int64: what every rank gave, `values` having one entry for each held rank.

        Note: Collective over comm.
        """


@dataclass(frozen=True, slots=True)
class Offline:
    """The router of one process that plans for all ranks: moving a row is sorting it."""

    num_ranks: int

    @property
    def held(self) -> range:
        return range(self.num_ranks)

    def route(self, table: Table, to_rank: IntRank) -> Table:
        # Tables are sorted by rank between steps, so a stable sort keeps (came from, place there) order.
        moved = Table(to_rank, table.columns)
        stay = (to_rank[1:] >= to_rank[:-1]).all()
        return moved if stay else moved.take(stable_order(to_rank, self.num_ranks))

    def reduce(self, values: Column, op: Literal["sum", "max"]) -> Column:
        return values

    def collect(self, values: IntGlobal) -> IntGlobal:
        return values


def part_cuts(table: Table, rank_to_group: IntRank, router: Router) -> IntRank:
    """Return ranks that cut a table ordered by rank into parts of some `PART_ROWS` rows, no group on both sides of one.

    What is done inside groups can be done part by part. In a job there is one part.

    Returns:
        (num_parts + 1,), from 0 to the number of ranks, ascending; see `split`.
    """
    ranks = np.arange(rank_to_group.size, dtype=np.int32)
    ends = ranks[[0, -1]] + np.array([0, 1], dtype=np.int32)
    if len(router.held) < router.num_ranks:
        return ends
    last = np.empty(int(rank_to_group.max()) + 1, dtype=np.int32)
    last[rank_to_group] = ranks  # of equal places the last one counts
    free = ranks[1:][np.maximum.accumulate(last[rank_to_group])[:-1] < ranks[1:]]
    part = np.searchsorted(table.rank, free) // PART_ROWS
    return np.concatenate([ends[:1], free[run_starts([part]) & (part > 0)], ends[1:]])


def split(table: Table, cuts: IntRank) -> list[Table]:
    """Return the parts of a table ordered by rank: those of ranks `cuts[i]` .. `cuts[i + 1]` - 1."""
    return [table.part(slice(*ends)) for ends in pairwise(np.searchsorted(table.rank, cuts).tolist())]


def rank_parts(start: IntGlobal) -> Iterator[range]:
    """Yield neighbouring ranks that have about `PART_ROWS` rows together, those of rank p from `start[p]` on."""
    steps = np.searchsorted(start[:-1], np.arange(PART_ROWS, int(start[-1]), PART_ROWS))
    yield from (range(*ends) for ends in pairwise(np.unique([0, *steps, start.size - 1]).tolist()))


def run_starts(keys: Sequence[Column]) -> Bools:
    """Return a mask of the places where a run of equal rows begins in sorted columns."""
    starts = np.zeros(keys[0].size, dtype=np.bool_)
    starts[:1] = True
    for key in keys:
        starts[1:] |= key[1:] != key[:-1]
    return starts


def falls(keys: Sequence[Column]) -> Bools:
    """Return a mask of the places in columns of rows that are less than the row before, the first key weighing most."""
    lower, same = (np.zeros(keys[0].size, dtype=np.bool_) for _ in range(2))
    same[1:] = True
    for key in keys:
        lower[1:] |= same[1:] & (key[1:] < key[:-1])
        same[1:] &= key[1:] == key[:-1]
    return lower


def run_ids(starts: Bools) -> IntGlobal:
    """Return the number of the run each place is in, counted from 0."""
    return np.cumsum(starts) - 1


def sort_order(keys: Sequence[Column]) -> IntGlobal:
    """Return the stable order of rows by `keys`, the first one weighing most.

    Keys whose joint range fits 63 bits are packed into one integer and sorted once; already sorted rows cost one pass.
    """
    order = _order_unless_sorted(keys)
    return np.arange(keys[0].size) if order is None else order


def _order_unless_sorted(keys: Sequence[Column]) -> IntGlobal | None:
    packing = _packing(keys)
    if packing is None:
        return np.lexsort(tuple(reversed(keys)))
    packed = _pack(keys, packing)
    return None if (packed[1:] >= packed[:-1]).all() else _argsort_packed(packed)


def distinct(keys: Sequence[Column]) -> list[Column]:
    """Return the distinct rows of `keys`, ascending; values are sorted, not positions, which is far faster."""
    packing = _packing(keys)
    if packing is None:
        order = np.lexsort(tuple(reversed(keys)))
        ordered = [key[order] for key in keys]
        starts = run_starts(ordered)
        return [key[starts] for key in ordered]
    packed = _pack(keys, packing)
    _sort_packed(packed, keys[0])
    return _unpack(packed[np.flatnonzero(run_starts([packed]))], keys, packing)


def number(keys: Sequence[Column]) -> IntGlobal:
    """Return for every row of `keys` the place of its value among the distinct rows, ascending, counted from 0."""
    packing = _packing(keys)
    if packing is None:
        order = np.lexsort(tuple(reversed(keys)))
        return _scattered(order, run_ids(run_starts([key[order] for key in keys])))
    packed = _pack(keys, packing)
    if (packed[1:] >= packed[:-1]).all():
        return run_ids(run_starts([packed]))
    if sum(bits for _, bits in packing) <= int(packed.size).bit_length():  # a flag for every value costs less to keep
        present = np.zeros(int(packed.max()) + 1, dtype=np.bool_)
        present[packed] = True
        return run_ids(present)[packed]
    order = _argsort_packed(packed)
    return _scattered(order, run_ids(run_starts([packed[order]])))


def _scattered(order: IntGlobal, values: IntGlobal) -> IntGlobal:
    result = np.empty_like(values)
    result[order] = values
    return result


def stable_order(key: Column, num_keys: int) -> IntGlobal:
    """Return the stable order of `key`, whose values are 0 .. num_keys - 1, in O(len + num_keys)."""
    if (key[1:] >= key[:-1]).all():
        return np.arange(key.size)
    if num_keys <= 1 << 16:
        return np.argsort(key.astype(np.uint16), kind="stable")  # a radix sort for 16-bit keys only
    return np.argsort(key, kind="stable")


Packing = list[tuple[int, int]]
"""For each key its least value and the bits that the others take above it."""


def _packing(keys: Sequence[Column]) -> Packing | None:
    """Return how to pack `keys` into one int64 that orders like them, or None where their ranges are too wide."""
    if keys[0].size == 0:
        return [(0, 0) for _ in keys]
    lows = [int(key.min()) for key in keys]
    bits = [(int(key.max()) - low).bit_length() for key, low in zip(keys, lows, strict=True)]
    return None if sum(bits) > 62 else list(zip(lows, bits, strict=True))


def _pack(keys: Sequence[Column], packing: Packing) -> IntGlobal:
    packed = np.empty(keys[0].size, dtype=np.int64)
    for part in _cached_blocks(packed.size):
        block = packed[part]
        block[...] = keys[0][part]
        block -= packing[0][0]
        for key, (low, bits) in zip(keys[1:], packing[1:], strict=True):
            block <<= bits
            block += key[part]
            block -= low
    return packed


def _unpack(packed: IntGlobal, keys: Sequence[Column], packing: Packing) -> list[Column]:
    """Return the columns again; `packed` is used up."""
    columns: list[Column] = [np.empty(packed.size, dtype=key.dtype) for key in keys]
    for part in _cached_blocks(packed.size):
        block = packed[part]
        for column, (low, bits) in zip(reversed(columns[1:]), reversed(packing[1:]), strict=True):
            column[part] = (block & ((1 << bits) - 1)) + low
            block >>= bits
        columns[0][part] = block + packing[0][0]
    return columns


def _cached_blocks(size: int) -> Iterator[slice]:
    """Yield parts of an array that stay in a core's cache while several steps are taken with them."""
    return (slice(begin, begin + _BLOCK) for begin in range(0, size, _BLOCK))


def _sort_packed(packed: IntGlobal, lead: Column) -> None:
    """Sort packed rows in place, in parts that stay in a core's cache where their leading key ascends already."""
    ends = [0, packed.size]
    if packed.size > PART_ROWS and (lead[1:] >= lead[:-1]).all():
        ends[1:1] = np.searchsorted(lead, lead[PART_ROWS::PART_ROWS]).tolist()
    for begin, end in pairwise(ends):
        packed[begin:end].sort()


def _argsort_packed(packed: IntGlobal) -> IntGlobal:
    """Argsort by sorting (value, position) as one integer where both fit: numpy sorts far faster than it argsorts."""
    bits = int(packed.size - 1).bit_length()
    if int(packed.max()).bit_length() + bits > 64:
        return np.argsort(packed, kind="stable")
    both = packed.astype(np.uint64) << np.uint64(bits)
    both |= np.arange(packed.size, dtype=np.uint64)
    both.sort()
    both &= np.uint64((1 << bits) - 1)
    return both.view(np.int64)
