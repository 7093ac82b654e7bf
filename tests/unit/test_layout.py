"""Who owns which rows, against numpy's own split and plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from sparsecomm.errors import InputError
from sparsecomm.layout import Layout

SEEDS = range(20)


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 7, 48])
@pytest.mark.parametrize("num_rows", [0, 1, 2, 6, 7, 100, 1023])
def test_block_is_array_split(num_rows: int, num_ranks: int) -> None:
    layout = Layout.block(num_rows, num_ranks)
    parts = np.array_split(np.arange(num_rows), num_ranks)
    assert (layout.num_rows, layout.num_ranks) == (num_rows, num_ranks)
    assert [list(layout.own_rows(p)) for p in range(num_ranks)] == [part.tolist() for part in parts]
    assert layout.counts.tolist() == [part.size for part in parts]
    expected = [p for p, part in enumerate(parts) for _ in part]
    assert layout.owners().tolist() == expected
    assert layout.owner(np.arange(num_rows)).tolist() == expected


@pytest.mark.parametrize("seed", SEEDS)
def test_from_owners(seed: int) -> None:
    rng = np.random.default_rng(seed)
    num_ranks = int(rng.integers(1, 9))
    owners = rng.integers(0, num_ranks, int(rng.integers(0, 40)))
    layout = Layout.from_owners(owners, num_ranks)
    rows_of = [[row for row, owner in enumerate(owners.tolist()) if owner == p] for p in range(num_ranks)]
    assert layout.counts.tolist() == [len(rows) for rows in rows_of]
    assert layout.new_to_old().tolist() == [row for rows in rows_of for row in rows]
    old = np.arange(owners.size)
    assert layout.owner(layout.to_new(old)).tolist() == owners.tolist()
    assert layout.owners()[layout.to_new(old)].tolist() == owners.tolist()


@pytest.mark.parametrize("seed", SEEDS)
def test_permutation_round_trip(seed: int) -> None:
    rng = np.random.default_rng(seed)
    layout = Layout.from_owners(rng.integers(0, 5, 33), 5)
    old = rng.permutation(33)
    assert np.array_equal(layout.new_to_old()[layout.to_new(old)], old)
    assert np.array_equal(layout.to_new(layout.new_to_old()), np.arange(33))


def test_without_a_permutation_numbers_stay() -> None:
    layout = Layout.block(10, 3)
    assert layout.old_to_new is None
    assert layout.new_to_old().tolist() == list(range(10))
    assert layout.to_new(np.array([4, 2])).tolist() == [4, 2]


def test_ranks_without_rows() -> None:
    layout = Layout(np.array([0, 0, 3, 3, 3, 5, 5]))
    assert layout.owners().tolist() == [1, 1, 1, 4, 4]
    assert layout.owner(np.arange(5)).tolist() == [1, 1, 1, 4, 4]
    assert list(layout.own_rows(2)) == []


def test_types_and_read_only() -> None:
    layout = Layout.from_owners(np.array([1, 0, 1], dtype=np.int32), 2)
    assert layout.offsets.dtype == np.int64
    assert layout.old_to_new.dtype == np.int64
    assert layout.owner(np.array([0, 1])).dtype == layout.owners().dtype == np.int32
    for array in (layout.offsets, layout.old_to_new):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


@pytest.mark.parametrize(
    ("owners", "row", "owner"), [([0, 3], 1, 3), ([0, -1], 1, -1), ([2**31, 0], 0, 2**31), ([0, 1, 2, 9, 8], 3, 9)]
)
def test_bad_owner_is_named(owners: list[int], row: int, owner: int) -> None:
    with pytest.raises(InputError, match=f"row {row} is given to rank {owner}, but ranks are 0 .. 2"):
        Layout.from_owners(np.array(owners), 3)


@pytest.mark.parametrize("offsets", [[], [0], [1, 2], [0, 3, 2], [[0, 1]], [-1, 0]])
def test_bad_offsets(offsets: list[int]) -> None:
    with pytest.raises(InputError, match="offsets"):
        Layout(np.array(offsets, dtype=np.int64))


@pytest.mark.parametrize("permutation", [[0, 1], [0, 1, 2, 3], [0, 0, 1], [0, 1, 3], [-1, 0, 1], [[0, 1, 2]]])
def test_bad_permutation(permutation: list[int]) -> None:
    with pytest.raises(InputError, match="permutation"):
        Layout(np.array([0, 2, 3]), np.array(permutation))


@pytest.mark.parametrize(("num_rows", "num_ranks"), [(4, 0), (4, -1), (-1, 2)])
def test_block_refuses(num_rows: int, num_ranks: int) -> None:
    with pytest.raises(InputError):
        Layout.block(num_rows, num_ranks)


@pytest.mark.parametrize("num_ranks", [0, -1])
def test_from_owners_needs_a_rank(num_ranks: int) -> None:
    with pytest.raises(InputError):
        Layout.from_owners(np.empty(0, dtype=np.int32), num_ranks)
