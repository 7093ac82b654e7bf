"""Sorting and routing of column tables, against Python's own sort."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from sparsecomm.table import (
    Offline,
    Table,
    distinct,
    number,
    part_cuts,
    run_ids,
    run_starts,
    sort_order,
    split,
    stable_order,
)

RANGES = {
    "few": (0, 3),
    "negative": (-5, 5),
    "32 bit": (-(2**31), 2**31 - 1),
    "40 bit": (-(2**39), 2**39),
    "64 bit": (-(2**63), 2**63 - 1),
}
EACH = pytest.mark.parametrize("kind", RANGES)
SIZES = pytest.mark.parametrize("size", [0, 1, 2, 50, 400])


def _column(rng: np.random.Generator, kind: str, size: int) -> npt.NDArray[np.int64]:
    """Draw from a range, with repeats, and with both ends of the range in it."""
    low, high = RANGES[kind]
    pool = np.concatenate([[low, high], rng.integers(low, high, max(2, size // 4), endpoint=True)])
    return rng.choice(pool, size)


def _table(kind: str, size: int, seed: int = 0) -> Table:
    rng = np.random.default_rng(seed)
    rank = rng.integers(0, 4, size).astype(np.int32)
    columns = {
        "a": _column(rng, kind, size),
        "b": rng.integers(-2, 3, size).astype(np.int32),
        "flag": rng.random(size) < 0.5,
        "place": np.arange(size),
        "wide": rng.random((size, 2)),
    }
    return Table(rank, columns)


def _rows(table: Table, *names: str) -> list[tuple[object, ...]]:
    return list(zip(table.rank.tolist(), *(table[name].tolist() for name in names), strict=True))


@EACH
@SIZES
def test_sort(kind: str, size: int) -> None:
    table = _table(kind, size)
    rows = _rows(table, "a", "b", "flag", "place")
    ordered = table.sort("a", "b", "flag")
    assert _rows(ordered, "a", "b", "flag", "place") == sorted(rows, key=lambda row: row[:4])
    assert np.array_equal(ordered["wide"], table["wide"][ordered["place"]])


@EACH
@SIZES
def test_unique_keeps_the_first(kind: str, size: int) -> None:
    table = _table(kind, size, seed=1)
    first: dict[object, tuple[object, ...]] = {}
    for row in _rows(table, "a", "b", "place"):
        first.setdefault(row[:3], row)
    assert _rows(table.unique("a", "b"), "a", "b", "place") == [first[key] for key in sorted(first)]


@EACH
@SIZES
def test_distinct(kind: str, size: int) -> None:
    table = _table(kind, size, seed=2)
    result = table.distinct("b", "a")
    assert list(result.columns) == ["b", "a"]
    assert _rows(result, "b", "a") == sorted(set(_rows(table, "b", "a")))
    assert (result.rank.dtype, result["b"].dtype, result["a"].dtype) == (np.int32, np.int32, np.int64)


@EACH
@SIZES
@pytest.mark.parametrize("ordered", [False, True])
def test_number(kind: str, size: int, ordered: bool) -> None:
    table = _table(kind, size).sort("a", "b") if ordered else _table(kind, size)
    keys = list(zip(table.rank.tolist(), table["a"].tolist(), strict=True))
    place = {key: i for i, key in enumerate(sorted(set(keys)))}
    assert number([table.rank, table["a"]]).tolist() == [place[key] for key in keys]


@EACH
@SIZES
def test_sort_order_is_stable(kind: str, size: int) -> None:
    rng = np.random.default_rng(3)
    keys = [_column(rng, kind, size), _column(rng, "few", size)]
    rows = list(zip(*(key.tolist() for key in keys), strict=True))
    assert sort_order(keys).tolist() == sorted(range(size), key=rows.__getitem__)


@pytest.mark.parametrize("bits", [20, 30, 31, 32, 56, 57, 58, 59, 60, 61, 62, 63])
def test_key_widths_around_the_packing_limit(bits: int) -> None:
    rng = np.random.default_rng(bits)
    for other in (0, 1, 2, 31, 32):
        low = -(2 ** (bits - 1))
        keys = [np.append(rng.integers(low, low + 2**bits - 1, 60), [low, low + 2**bits - 1])]
        keys.append(np.append(rng.integers(0, 2**other, 60), [0, 2**other - 1]))
        rows = list(zip(*(key.tolist() for key in keys), strict=True))
        assert sort_order(keys).tolist() == sorted(range(62), key=rows.__getitem__)
        assert list(zip(*(key.tolist() for key in distinct(keys)), strict=True)) == sorted(set(rows))


def test_inputs_stay_as_they_were() -> None:
    table = _table("40 bit", 30)
    before = {name: column.copy() for name, column in table.columns.items()}
    table.sort("a"), table.unique("a"), table.distinct("a"), Offline(4).route(table.sort(), table.sort().rank[::-1])
    assert all(np.array_equal(before[name], table[name]) for name in before)


@pytest.mark.parametrize("num_keys", [1, 3, 1 << 16, (1 << 16) + 1])
def test_stable_order(num_keys: int) -> None:
    rng = np.random.default_rng(num_keys)
    for size in (0, 1, 500):
        key = rng.choice([0, num_keys - 1, num_keys // 2], size).astype(np.int32)
        expected = sorted(range(size), key=key.tolist().__getitem__)
        assert stable_order(key, num_keys).tolist() == expected
        assert stable_order(np.sort(key), num_keys).tolist() == list(range(size))


def test_runs() -> None:
    keys = [np.array([1, 1, 1, 2, 2]), np.array([0, 0, 3, 3, 3])]
    starts = run_starts(keys)
    assert starts.tolist() == [True, False, True, True, False]
    assert run_ids(starts).tolist() == [0, 0, 1, 2, 2]
    assert run_starts([np.empty(0)]).tolist() == []


def test_take_with_only_concat() -> None:
    table = _table("few", 6)
    assert _rows(table.take(np.array([4, 1])), "place") == [_rows(table, "place")[i] for i in (4, 1)]
    assert table.take(table["flag"])["place"].tolist() == [i for i in range(6) if table["flag"][i]]
    assert list(table.only("b", "a").columns) == ["b", "a"]
    more = table.with_columns(place=np.zeros(6), new=np.ones(6))
    assert (more["place"].sum(), more["new"].sum(), table["place"].sum()) == (0, 6, 15)
    both = Table.concat([table, table.take(np.empty(0, dtype=np.int64)), table])
    assert len(both) == 12
    assert _rows(both, "a", "b") == _rows(table, "a", "b") * 2
    assert both["wide"].shape == (12, 2)


@SIZES
def test_offline_route(size: int) -> None:
    table = _table("few", size, seed=5).sort()
    to_rank = np.random.default_rng(6).integers(0, 4, size).astype(np.int32)
    moved = Offline(4).route(table.with_columns(came=table.rank), to_rank)
    came = table.rank.tolist()
    rows = sorted((to, came[place], place) for place, to in enumerate(to_rank.tolist()))
    assert moved.rank.tolist() == [to for to, _, _ in rows]
    assert moved["came"].tolist() == [rank for _, rank, _ in rows]
    assert moved["place"].tolist() == [int(table["place"][place]) for _, _, place in rows]


def test_offline_holds_all_ranks() -> None:
    router = Offline(3)
    values = np.array([4, 5, 6])
    assert router.held == range(3)
    assert router.reduce(values, "sum") is values
    assert router.collect(values) is values


@pytest.mark.parametrize("seed", range(20))
def test_parts_leave_groups_whole(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparsecomm.table.PART_ROWS", 6)
    rng = np.random.default_rng(seed)
    group = np.sort(rng.integers(0, 5, 12)) if seed % 2 else rng.permutation(np.arange(12) // 4)
    group = np.unique(group, return_inverse=True)[1].astype(np.int32)
    rank = np.sort(rng.integers(0, 12, 50)).astype(np.int32)
    table = Table(rank, {"place": np.arange(50)})
    parts = split(table, part_cuts(table, group, Offline(12)))
    assert np.concatenate([part["place"] for part in parts]).tolist() == list(range(50))
    inside = [set(group[part.rank].tolist()) for part in parts]
    assert sum(map(len, inside)) == len(set().union(*inside))
    if seed % 2:
        assert len(parts) > 1
        assert all(len(part) <= 6 + np.bincount(group[rank]).max() for part in parts)


def test_order_does_not_depend_on_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparsecomm.table.PART_ROWS", 7)
    table = _table("few", 400, seed=2).sort("place").only("a", "b")
    assert _rows(table.sort("b", "a"), "b", "a") == sorted(_rows(table, "b", "a"))
    assert _rows(table.distinct("b", "a"), "b", "a") == sorted(set(_rows(table, "b", "a")))
