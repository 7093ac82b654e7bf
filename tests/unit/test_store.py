"""Plan and partition directories: what is saved comes back array by array, and nothing else is believed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import random_array

from sparsecomm.collectives.strategies import make_product
from sparsecomm.errors import InputError
from sparsecomm.layout import Layout, Layouts
from sparsecomm.matrix_store import (
    load_matrix,
    load_partition_header,
    load_partition_layouts,
    load_shard,
    renumber,
    save_partition,
)
from sparsecomm.pattern import Remote
from sparsecomm.product import Product
from sparsecomm.product_store import (
    check_matrix,
    check_topology,
    load_product,
    load_product_header,
    load_rank_product,
    save_product,
)
from sparsecomm.store import new_directory
from sparsecomm.topology import Topology

MACHINE = Topology.parse("nodes:3,1,2")
STRATEGIES = ("direct", "hierarchical", "reduce")
INFO = {"name": "random", "rows": 60, "cols": 60, "nnz": 0, "fingerprint": "0123456789abcdef"}
Json = dict[str, Any]


def example(square: bool = True, permuted: bool = True, dtype: str = "float64") -> tuple[Any, Layouts]:
    """Return a renumbered matrix and its layouts; rank 1 has no rows."""
    rng = np.random.default_rng(5)
    matrix = random_array((60, 60 if square else 41), density=0.06, format="csr", random_state=rng, dtype=dtype)
    takers = np.array([0, 2, 3, 4, 5], dtype=np.int32)

    def layout(num_rows: int) -> Layout:
        return Layout.from_owners(rng.choice(takers, num_rows), 6) if permuted else Layout.block(num_rows, 6)

    rows = layout(60)
    layouts = Layouts(rows, rows if square else layout(41))
    return renumber(matrix, layouts), layouts


def saved_product(path: Path, strategy: str = "hierarchical", square: bool = True) -> tuple[Product, Remote]:
    matrix, layouts = example(square)
    remote = Remote.of(matrix, layouts)
    product = make_product(remote, MACHINE, strategy)
    save_product(path, product, remote, {**INFO, "rows": matrix.shape[0], "cols": matrix.shape[1], "nnz": matrix.nnz})
    return product, remote


def saved_partition(path: Path, **kind: Any) -> tuple[Any, Layouts]:
    matrix, layouts = example(**kind)
    header = {
        "matrix": {**INFO, "rows": matrix.shape[0], "cols": matrix.shape[1], "nnz": matrix.nnz},
        "topology": MACHINE.to_dict(),
        "num_ranks": 6,
        "method": "by hand",
        "seconds": 0.25,
    }
    save_partition(path, matrix, layouts, header)
    return matrix, layouts


def assert_same(found: Any, expected: Any) -> None:
    """Compare all fields of dataclasses, down to every array and its dtype."""
    if is_dataclass(expected) or isinstance(expected, tuple):
        assert type(found) is type(expected)
        pairs = (
            zip(found, expected, strict=True)
            if isinstance(expected, tuple)
            else ((getattr(found, f.name), getattr(expected, f.name)) for f in fields(expected))
        )
        for one, other in pairs:
            assert_same(one, other)
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    else:
        assert found == expected


def change_header(path: Path, **changes: Any) -> None:
    header = json.loads((path / "header.json").read_text())
    (path / "header.json").write_text(json.dumps({**header, **changes}))


@pytest.mark.parametrize("square", [True, False])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_product_round_trip(strategy: str, square: bool, tmp_path: Path) -> None:
    product, remote = saved_product(tmp_path / "plan", strategy, square)
    header = load_product_header(tmp_path / "plan", 6)
    assert header["fingerprint"] == product.fingerprint()
    assert_same(load_product(tmp_path / "plan"), product)
    for rank in range(6):
        assert_same(load_rank_product(tmp_path / "plan", header, rank), product.rank(rank, remote))


def test_a_loaded_product_is_proved_again(tmp_path: Path) -> None:
    _, remote = saved_product(tmp_path / "plan", "reduce")
    load_product(tmp_path / "plan").verify(remote)


@pytest.mark.parametrize("permuted", [True, False])
@pytest.mark.parametrize("square", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_partition_round_trip(square: bool, permuted: bool, dtype: str, tmp_path: Path) -> None:
    matrix, layouts = saved_partition(tmp_path / "cut", square=square, permuted=permuted, dtype=dtype)
    header = load_partition_header(tmp_path / "cut", 6)
    found = load_partition_layouts(tmp_path / "cut", header)
    assert_same(found, layouts)
    assert (found.cols is found.rows) == square
    whole = load_matrix(tmp_path / "cut", found)
    assert whole.dtype == np.dtype(dtype)
    for name in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(matrix, name))
    for rank in range(6):
        own = layouts.rows.own_rows(rank)
        part = load_shard(tmp_path / "cut", found, rank)
        assert part.shape == (len(own), matrix.shape[1])
        assert not (part != matrix[own.start : own.stop]).nnz


def _version(number: object) -> Callable[[Path], None]:
    return lambda path: change_header(path, version=number)


DAMAGE_TO_ANY = {
    "older version": (_version(0), r"version 0, but this library reads 1; make it anew"),
    "newer version": (_version(2), r"version 2, but this library reads 1; make it anew"),
    "no version": (_version(None), r"version None"),
    "no header": (lambda path: (path / "header.json").unlink(), "it has no header.json"),
    "no JSON": (lambda path: (path / "header.json").write_text("{"), r"header.json cannot be read"),
    "a list": (lambda path: (path / "header.json").write_text("[1]"), "has format list, but"),
    "other format": (lambda path: change_header(path, format="other"), "has format other, but"),
    "no ranks": (lambda path: change_header(path, num_ranks=0), "0 ranks|hashes"),
    "ranks as text": (lambda path: change_header(path, num_ranks="6"), "lacks num_ranks"),
    "no matrix": (lambda path: change_header(path, matrix={}), "does not describe a matrix"),
    "fewer ranks": (lambda path: change_header(path, num_ranks=5), "5 ranks|on 5"),
    "layout missing": (lambda path: (path / "rows.offsets.npy").unlink(), "is missing; the directory is incomplete"),
    "layout too short": (lambda path: save(path / "rows.offsets.npy", [0, 60]), "layout of rows has 60 on 1 ranks"),
    "layout beyond": (lambda path: save(path / "rows.offsets.npy", [0, 9, 9, 9, 9, 9, 99]), "permutation|99 on 6"),
    "layout falls": (lambda path: save(path / "rows.offsets.npy", [0, 9, 5, 9, 9, 9, 60]), "never fall"),
    "row twice": (lambda path: save(path / "rows.old_to_new.npy", [0] * 60), "every row exactly once"),
    "shard missing": (lambda path: first_array(path).unlink(), "is missing; the directory is incomplete"),
    "shard cut": (lambda path: cut(first_array(path)), "cannot be read"),
    "shard empty": (lambda path: first_array(path).write_bytes(b""), "cannot be read"),
    "pickle": (lambda path: pickle(first_array(path)), "it holds '.O', not numbers"),
}


def save(path: Path, values: list[int]) -> None:
    np.save(path, np.array(values))


def first_array(path: Path) -> Path:
    """Return an array of rank 3, which has rows and ghosts."""
    folder = path / "rank_000003"
    return next(folder / name for name in ("gather.slots.npy", "matrix.data.npy") if (folder / name).exists())


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def pickle(path: Path) -> None:
    np.save(path, np.array([{"an": "object"}], dtype=object), allow_pickle=True)


def read_plan(path: Path) -> None:
    load_product(path)


def read_partition(path: Path) -> None:
    header = load_partition_header(path)
    load_matrix(path, load_partition_layouts(path, header))


@pytest.mark.parametrize("damage", DAMAGE_TO_ANY)
@pytest.mark.parametrize(("make", "read"), [(saved_product, read_plan), (saved_partition, read_partition)])
def test_damage_is_refused(
    damage: str, make: Callable[[Path], object], read: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "made"
    make(path)
    act, says = DAMAGE_TO_ANY[damage]
    act(path)
    with pytest.raises(InputError, match=says) as caught:
        read(path)
    assert "made" in str(caught.value)


@pytest.mark.parametrize("name", ["gather.slots", "gather.ghost_rows", "gather.messages", "scatter.levels"])
def test_a_changed_plan_is_refused(name: str, tmp_path: Path) -> None:
    saved_product(tmp_path / "plan", "reduce" if name.startswith("scatter") else "direct")
    file = tmp_path / "plan" / "rank_000003" / f"{name}.npy"
    array = np.load(file)
    array.flat[0] += 1
    np.save(file, array)
    with pytest.raises(InputError, match=r"damaged|plan again|make the directory anew"):
        load_product(tmp_path / "plan")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("indptr", lambda a: a + 1),
        ("indices", lambda a: a + 60),
        ("indices", lambda a: a[::-1]),
        ("data", lambda a: a[1:]),
    ],
)
def test_a_changed_shard_is_refused(name: str, change: Callable[[Any], Any], tmp_path: Path) -> None:
    saved_partition(tmp_path / "cut")
    file = tmp_path / "cut" / "rank_000003" / f"matrix.{name}.npy"
    np.save(file, change(np.load(file)))
    with pytest.raises(InputError, match="partition again"):
        read_partition(tmp_path / "cut")


def test_made_for_something_else(tmp_path: Path) -> None:
    saved_product(tmp_path / "plan")
    header = load_product_header(tmp_path / "plan")
    with pytest.raises(InputError, match="is for 6 ranks, but here are 4; use 6 ranks or plan again"):
        load_product_header(tmp_path / "plan", 4)
    with pytest.raises(InputError, match="was made for matrix random, which has another structure than other"):
        check_matrix(tmp_path / "plan", header, "other", "f" * 16)
    with pytest.raises(InputError, match="was made for topology nodes:3,1,2, not nodes:2,2,2"):
        check_topology(tmp_path / "plan", header, Topology.parse("nodes:2,2,2"))
    check_matrix(tmp_path / "plan", header, "other", INFO["fingerprint"])
    check_topology(tmp_path / "plan", header, Topology.parse("nodes:3,1,2"))
    saved_partition(tmp_path / "cut")
    with pytest.raises(InputError, match="is for 6 ranks, not 4; use 6 ranks or partition again"):
        load_partition_header(tmp_path / "cut", 4)
    with pytest.raises(InputError, match=r"format sparsecomm\.partition, but sparsecomm\.product is needed"):
        load_product_header(tmp_path / "cut")


def test_a_directory_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def fail() -> None:
        with new_directory(tmp_path / "plan", "sparsecomm.product") as folder:
            (folder / "half").write_text("of it")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []
    product, _ = saved_product(tmp_path / "plan", "direct")
    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["plan"]
    assert_same(load_product(tmp_path / "plan"), product)


def test_only_a_directory_of_its_own_kind_is_replaced(tmp_path: Path) -> None:
    saved_product(tmp_path / "plan", "direct")
    product, _ = saved_product(tmp_path / "plan", "reduce")
    assert load_product(tmp_path / "plan").fingerprint() == product.fingerprint()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="was not written by sparsecomm; choose another name"):
        saved_product(tmp_path / "notes")
    with pytest.raises(InputError, match=r"is a sparsecomm\.product directory; choose another name"):
        saved_partition(tmp_path / "plan")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes", "plan"]
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["mine.txt"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"cannot be written: .*; choose another place"):
        saved_product(tmp_path / "file" / "plan")
