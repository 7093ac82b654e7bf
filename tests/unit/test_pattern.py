"""Remote nonzeros and ghost rows, against loops over the stored entries."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.sparse import csr_array

from sparsecomm.errors import InputError
from sparsecomm.layout import Layout, Layouts
from sparsecomm.pattern import Pattern, Remote
from sparsecomm.table import Offline, Table
from tests.planning_oracles import MACHINES, Case, col_needs, nonzeros, owner_list, random_case, row_needs

CASES = [random_case(seed, tree) for seed, tree in enumerate([*MACHINES.values()] * 3)]
EVERY = pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))


def _remote(case: Case) -> list[tuple[int, int, int, int]]:
    """Return (row rank, row, column, column rank) of the remote nonzeros in CSR order."""
    rows, cols = owner_list(case.layouts.rows), owner_list(case.layouts.cols)
    return [(rows[i], i, j, cols[j]) for i, j in nonzeros(case.matrix) if rows[i] != cols[j]]


def _list(table: Table) -> list[tuple[int, ...]]:
    columns = (table[name].tolist() for name in ("row", "col", "col_rank"))
    return list(zip(table.rank.tolist(), *columns, strict=True))


def _ghosts(pattern: Pattern) -> list[tuple[int, int, int]]:
    ghosts = pattern.ghosts
    return list(zip(ghosts.rank.tolist(), ghosts["row"].tolist(), ghosts["owner"].tolist(), strict=True))


@EVERY
def test_remote(case: Case) -> None:
    remote = Remote.of(case.matrix, case.layouts)
    assert _list(remote.nonzeros) == _remote(case)
    rows, cols = owner_list(case.layouts.rows), owner_list(case.layouts.cols)
    own = [rows[i] for i, j in nonzeros(case.matrix) if rows[i] == cols[j]]
    assert remote.own_nnz.tolist() == [own.count(p) for p in range(case.machine.num_ranks)]
    assert (remote.nonzeros.rank.dtype, remote.nonzeros["col_rank"].dtype) == (np.int32, np.int32)
    assert (remote.nonzeros["row"].dtype, remote.nonzeros["col"].dtype) == (np.int64, np.int64)


@EVERY
def test_remote_of_some_ranks(case: Case) -> None:
    whole, offsets, num_ranks = Remote.of(case.matrix, case.layouts), case.layouts.rows.offsets, case.machine.num_ranks
    cuts = sorted({0, 1, num_ranks // 2, num_ranks})
    found, own_nnz = [], []
    for first, last in pairwise(cuts):
        part = Remote.of(case.matrix[offsets[first] : offsets[last]], case.layouts, range(first, last))
        found += _list(part.nonzeros)
        own_nnz += part.own_nnz.tolist()
    assert found == _list(whole.nonzeros)
    assert own_nnz == whole.own_nnz.tolist()


@EVERY
def test_transpose(case: Case) -> None:
    turned = Remote.of(case.matrix, case.layouts).transpose(Offline(case.machine.num_ranks))
    expected = Remote.of(csr_array(case.matrix.T), Layouts(case.layouts.cols, case.layouts.rows))
    assert _list(turned.nonzeros) == _list(expected.nonzeros)
    assert turned.own_nnz.tolist() == expected.own_nnz.tolist()
    assert turned.layouts == expected.layouts


@EVERY
def test_ghosts(case: Case) -> None:
    remote = Remote.of(case.matrix, case.layouts)
    for pattern, needs, layout in (
        (Pattern.of_cols(remote), col_needs(case), case.layouts.cols),
        (Pattern.of_rows(remote, Offline(case.machine.num_ranks)), row_needs(case), case.layouts.rows),
    ):
        owners = owner_list(layout)
        assert _ghosts(pattern) == sorted((p, row, owners[row]) for row, users in needs.items() for p in users)
        assert pattern.layout is layout


def test_stored_zeros_are_entries() -> None:
    matrix = csr_array((np.array([0.0, 1.0]), np.array([1, 0]), np.array([0, 1, 2])), shape=(2, 2))
    layout = Layout.block(2, 2)
    remote = Remote.of(matrix, Layouts(layout, layout))
    assert _list(remote.nonzeros) == [(0, 0, 1, 1), (1, 1, 0, 0)]
    # of_rows: the owner of column 1 (rank 1) makes a part of row 0.
    assert _ghosts(Pattern.of_rows(remote, Offline(2))) == [(0, 1, 1), (1, 0, 0)]


def test_requests_drop_own_rows_and_repeats() -> None:
    layout = Layout(np.array([0, 2, 2, 5]))
    rank, row = np.array([2, 0, 0, 1, 2, 0], dtype=np.int32), np.array([0, 4, 1, 3, 0, 4])
    assert _ghosts(Pattern.of_requests(rank, row, layout)) == [(0, 4, 2), (1, 3, 2), (2, 0, 0)]
    assert _ghosts(Pattern.empty(layout)) == []


@EVERY
def test_union(case: Case) -> None:
    pattern, rng = Pattern.of_cols(Remote.of(case.matrix, case.layouts)), np.random.default_rng(0)
    rank = rng.integers(0, case.machine.num_ranks, 20).astype(np.int32)
    other = Pattern.of_requests(rank, rng.integers(0, case.layouts.cols.num_rows, 20), case.layouts.cols)
    expected = sorted({*_ghosts(pattern), *_ghosts(other)})
    assert _ghosts(Pattern.union([pattern, other])) == _ghosts(Pattern.union([other, pattern, other])) == expected


def test_wrong_shape() -> None:
    layouts = Layouts(Layout.block(4, 2), Layout.block(6, 2))
    for shape in ((4, 4), (6, 4), (6, 6), (3, 6)):
        with pytest.raises(InputError, match=r"shape \(4, 6\)"):
            Remote.of(csr_array(shape), layouts)
    with pytest.raises(InputError, match=r"shape \(2, 6\)"):
        Remote.of(csr_array((4, 6)), layouts, range(1, 2))


def test_rows_and_columns_on_different_numbers_of_ranks() -> None:
    with pytest.raises(InputError, match=r"2.*3|3.*2"):
        Remote.of(csr_array((4, 6)), Layouts(Layout.block(4, 2), Layout.block(6, 3)))
