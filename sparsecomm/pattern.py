"""What has to move: the remote nonzeros of a matrix and the ghost rows that follow from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast

import numpy as np
from scipy.sparse import csr_array

from sparsecomm.errors import InputError
from sparsecomm.layout import Layout, Layouts
from sparsecomm.table import Router, Table, rank_parts
from sparsecomm.typing import IntGlobal, IntRank

Result = TypeVar("Result")

_KEPT: Final = object()


@dataclass(frozen=True, slots=True, eq=False)
class Remote:
    """The nonzeros of A whose row and column have different owners.

    Args:
        nonzeros: in CSR order on the rank that owns their row: `row`, `col` (int64, new numbering) and `col_rank`
            (int32), the owner of the column.
        layouts: who owns rows and columns.
        own_nnz: int64, for every held rank, its nonzeros with own row and own column.
    """

    nonzeros: Table
    layouts: Layouts
    own_nnz: IntGlobal
    _found: dict[object, Any] = field(init=False, repr=False, default_factory=dict)

    @staticmethod
    def of(matrix: csr_array[Any], layouts: Layouts, held: range | None = None) -> Remote:
        """Find the remote nonzeros.

        Args:
            matrix: the rows of the held ranks, in new numbering: (rows held, all columns).
            layouts: who owns rows and columns.
            held: the ranks whose rows `matrix` has; all of them by default.

        Raises:
            InputError: the shape of `matrix` does not fit `layouts`, or these are for different numbers of ranks.
        """
        parts = [layout.num_ranks for layout in layouts]
        if parts[0] != parts[1]:
            raise InputError(f"rows are laid out over {parts[0]} ranks but columns over {parts[1]}; use the same ranks")
        held = range(layouts.rows.num_ranks) if held is None else held
        first, last = layouts.rows.offsets[held.start], layouts.rows.offsets[held.stop]
        expected = (int(last - first), layouts.cols.num_rows)
        if matrix.shape != expected:
            raise InputError(f"matrix has shape {matrix.shape}, but the layouts give ranks {held} shape {expected}")
        start = matrix.indptr[layouts.rows.offsets[held.start : held.stop + 1] - first].astype(np.int64)
        col_rank = layouts.cols.owner(matrix.indices)
        table = Table.concat([_remote_part(matrix, col_rank, layouts, held, ranks) for ranks in rank_parts(start)])
        own_nnz = np.diff(start) - np.bincount(table.rank - held.start, minlength=len(held))
        return Remote(table, layouts, own_nnz.astype(np.int64))

    def once(self, key: object, find: Callable[[], Result]) -> Result:
        """Return what `find` returned for `key` the first time: strategies and bounds share what is costly to find."""
        if key not in self._found:
            self._found[key] = find()
        return cast(Result, self._found[key])

    def keep(self, key: object, value: object) -> None:
        """Hold `value` until it is taken, in place of what was held before: what is large is not held twice."""
        self._found[_KEPT] = key, value

    def take(self, key: object) -> Any | None:
        """Return what is held for `key`, which is no longer held then, or None."""
        if _KEPT not in self._found or self._found[_KEPT][0] != key:
            return None
        return self._found.pop(_KEPT)[1]

    def transpose(self, router: Router) -> Remote:
        """Return the remote nonzeros of the transposed matrix, on the ranks that own its rows.

        Note: Collective over comm.
        """
        table = self.nonzeros
        turned = Table(table.rank, {"row": table["col"], "col": table["row"], "col_rank": table.rank})
        moved = router.route(turned, table["col_rank"]).sort("row", "col")
        return Remote(moved, Layouts(self.layouts.cols, self.layouts.rows), self.own_nnz)


def _remote_part(matrix: csr_array[Any], col_rank: IntRank, layouts: Layouts, held: range, ranks: range) -> Table:
    """Return the remote nonzeros of some ranks.

    Args:
        matrix: the rows of the held ranks.
        col_rank: the owner of the column of each nonzero.
        layouts: who owns rows and columns.
        held: the ranks whose rows `matrix` has.
        ranks: counted from the first of these.
    """
    offsets = layouts.rows.offsets[held.start + ranks.start : held.start + ranks.stop + 1]
    indptr = matrix.indptr[offsets[0] - layouts.rows.offsets[held.start] :][: offsets[-1] - offsets[0] + 1]
    nonzeros, counts = slice(indptr[0], indptr[-1]), np.diff(indptr)
    of_row = np.repeat(np.arange(held.start + ranks.start, held.start + ranks.stop, dtype=np.int32), np.diff(offsets))
    row_rank, col_rank = np.repeat(of_row, counts), col_rank[nonzeros]
    remote = np.flatnonzero(row_rank != col_rank)
    columns = {
        "row": np.repeat(np.arange(offsets[0], offsets[-1]), counts)[remote],
        "col": matrix.indices[nonzeros][remote].astype(np.int64),
        "col_rank": col_rank[remote],
    }
    return Table(row_rank[remote], columns)


@dataclass(frozen=True, slots=True, eq=False)
class Pattern:
    """The ghost rows of every held rank.

    Args:
        ghosts: distinct (rank, `row`), ascending, with `owner` (int32).
        layout: who owns the rows.
    """

    ghosts: Table
    layout: Layout

    @staticmethod
    def of_cols(remote: Remote) -> Pattern:
        """Return the rows of X that the owners of A's rows need."""
        table = remote.nonzeros
        return remote.once("cols", lambda: Pattern._of(table.rank, table["col"], remote.layouts.cols))

    @staticmethod
    def of_rows(remote: Remote, router: Router) -> Pattern:
        """Return the rows of Y that the owners of A's columns make partial sums of.

        Note: Collective over comm.
        """
        table = remote.nonzeros
        return Pattern.at(table["col_rank"], table["row"], remote.layouts.rows, router)

    @staticmethod
    def at(rank: IntRank, row: IntGlobal, layout: Layout, router: Router) -> Pattern:
        """Return the distinct ghosts `row[i]` of `rank[i]`, which need not be held here.

        Note: Collective over comm.
        """
        made = Table(rank, {"row": row}).distinct("row")
        if len(router.held) < router.num_ranks:
            made = router.route(Table(np.full_like(made.rank, router.held.start), made.columns), made.rank)
        return Pattern._of(made.rank, made["row"], layout)

    @staticmethod
    def of_requests(rank: IntRank, row: IntGlobal, layout: Layout) -> Pattern:
        """Return the ghosts among `row[i]` asked for by `rank[i]`; own rows and repeats drop out."""
        remote = layout.owner(row) != rank
        return Pattern._of(rank[remote], row[remote], layout)

    @staticmethod
    def empty(layout: Layout) -> Pattern:
        return Pattern._of(np.empty(0, np.int32), np.empty(0, np.int64), layout)

    @staticmethod
    def _of(rank: IntRank, row: IntGlobal, layout: Layout) -> Pattern:
        ghosts = Table(rank, {"row": row}).distinct("row")
        return Pattern(ghosts.with_columns(owner=layout.owner(ghosts["row"])), layout)

    @staticmethod
    def union(patterns: Sequence[Pattern]) -> Pattern:
        """Return the ghosts that any of `patterns` needs, for products that share one exchange."""
        ghosts = Table.concat([pattern.ghosts for pattern in patterns])
        return Pattern._of(ghosts.rank, ghosts["row"], patterns[0].layout)


def patterns_of(remote: Remote, multiplier: IntRank, router: Router) -> tuple[Pattern, Pattern]:
    """Return the rows of X and of Y that the ranks which multiply the remote nonzeros need and do not own.

    Args:
        remote: the remote nonzeros.
        multiplier: (num_remote,) int32, the rank that multiplies each.
        router: moves the requests to these ranks.

    Note: Collective over comm.
    """
    table, layouts = remote.nonzeros, remote.layouts
    cols, rows = np.flatnonzero(multiplier != table["col_rank"]), np.flatnonzero(multiplier != table.rank)
    return (
        Pattern.at(multiplier[cols], table["col"][cols], layouts.cols, router),
        Pattern.at(multiplier[rows], table["row"][rows], layouts.rows, router),
    )
