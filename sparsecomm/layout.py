"""Who owns which rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from sparsecomm.errors import InputError
from sparsecomm.typing import IntGlobal, IntRank, frozen

_FEW_ROWS_FOR_EACH: Final = 8


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """The owner of every row: rows are renumbered so that each rank owns a contiguous range.

    Args:
        offsets: (num_ranks + 1,) int64; rank p owns the new rows `offsets[p] .. offsets[p + 1] - 1`.
        old_to_new: (num_rows,) int64, the new number of every original row, or None where nothing moves.

    Example:
        >>> layout = Layout.from_owners(np.array([1, 0, 1]), num_ranks=2)
        >>> layout.offsets.tolist(), layout.old_to_new.tolist()
        ([0, 1, 3], [1, 0, 2])
    """

    offsets: IntGlobal
    old_to_new: IntGlobal | None = None

    def __post_init__(self) -> None:
        offsets = np.asarray(self.offsets, dtype=np.int64)
        if offsets.ndim != 1 or offsets.size < 2 or offsets[0] != 0 or (np.diff(offsets) < 0).any():
            raise InputError("layout offsets must start at 0, never fall, and have one entry more than there are ranks")
        object.__setattr__(self, "offsets", frozen(offsets))
        if self.old_to_new is not None:
            object.__setattr__(self, "old_to_new", frozen(_permutation(self.old_to_new, int(offsets[-1]))))

    @property
    def num_ranks(self) -> int:
        return self.offsets.size - 1

    @property
    def num_rows(self) -> int:
        return int(self.offsets[-1])

    @property
    def counts(self) -> IntGlobal:
        """(num_ranks,) int64: rows each rank owns."""
        return np.diff(self.offsets)

    def own_rows(self, rank: int) -> range:
        """Return the new numbers of the rows that `rank` owns."""
        return range(int(self.offsets[rank]), int(self.offsets[rank + 1]))

    def owner(self, rows: npt.NDArray[np.integer]) -> IntRank:
        """Return the owner of each of `rows` (new numbering), int32."""
        if rows.size * _FEW_ROWS_FOR_EACH > self.num_rows:  # a table of all owners answers faster than as many searches
            return cast(IntRank, self.owners()[rows])
        return (np.searchsorted(self.offsets, rows, side="right") - 1).astype(np.int32)

    def owners(self) -> IntRank:
        """Return `row_to_owner` of all rows in new numbering, (num_rows,) int32."""
        return np.repeat(np.arange(self.num_ranks, dtype=np.int32), self.counts)

    def to_new(self, old: IntGlobal) -> IntGlobal:
        """Return the new numbers of original rows."""
        return old if self.old_to_new is None else self.old_to_new[old]

    def to_all(self) -> IntGlobal:
        """Return the new number of every original row, (num_rows,) int64."""
        return np.arange(self.num_rows, dtype=np.int64) if self.old_to_new is None else self.old_to_new

    def new_to_old(self) -> IntGlobal:
        """Return the original number of every new row, (num_rows,) int64."""
        if self.old_to_new is None:
            return np.arange(self.num_rows, dtype=np.int64)
        inverse = np.empty_like(self.old_to_new)
        inverse[self.old_to_new] = np.arange(self.num_rows, dtype=np.int64)
        return inverse

    @staticmethod
    def block(num_rows: int, num_ranks: int) -> Layout:
        """Split rows into contiguous blocks, the first `num_rows % num_ranks` of them one longer."""
        _check_counts(num_rows, num_ranks)
        size, longer = divmod(num_rows, num_ranks)
        ranks = np.arange(num_ranks + 1, dtype=np.int64)
        return Layout(ranks * size + np.minimum(ranks, longer))

    @staticmethod
    def from_owners(row_to_owner: IntRank, num_ranks: int) -> Layout:
        """Make the layout in which rank `row_to_owner[i]` owns original row i; each rank keeps their order.

        Raises:
            InputError: an owner is not one of the ranks.
        """
        owners = np.asarray(row_to_owner)
        _check_counts(owners.size, num_ranks)
        if owners.size and (owners.min() < 0 or owners.max() >= num_ranks):
            bad = int(np.flatnonzero((owners < 0) | (owners >= num_ranks))[0])
            raise InputError(f"row {bad} is given to rank {owners[bad]}, but ranks are 0 .. {num_ranks - 1}")
        order = np.argsort(owners, kind="stable")
        old_to_new = np.empty(owners.size, dtype=np.int64)
        old_to_new[order] = np.arange(owners.size)
        offsets = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=num_ranks))])
        return Layout(offsets.astype(np.int64), old_to_new)


class Layouts(NamedTuple):
    """Who owns the rows of A (and of Y) and who owns its columns (the rows of X); one object where A is square."""

    rows: Layout
    cols: Layout


def _check_counts(num_rows: int, num_ranks: int) -> None:
    if num_rows < 0 or num_ranks < 1:
        raise InputError(f"cannot give {num_rows} rows to {num_ranks} ranks; give at least 0 rows and 1 rank")


def _permutation(old_to_new: IntGlobal, num_rows: int) -> IntGlobal:
    array = np.asarray(old_to_new, dtype=np.int64)
    if array.shape != (num_rows,):
        raise InputError(f"layout has {array.size} rows in its permutation but {num_rows} in its offsets")
    if num_rows and (array.min() < 0 or array.max() >= num_rows or np.bincount(array, minlength=num_rows).max() > 1):
        raise InputError("layout permutation must name every row exactly once")
    return array
