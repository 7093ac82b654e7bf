"""Plans found again: offline and in a job, on disk and in memory, bounded, and never when anything differs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from sparsecomm.apps.matrix import DistMatrix
from sparsecomm.collectives.strategies import choose
from sparsecomm.collectives.strategy import get_strategy, is_built_in, strategy_names
from sparsecomm.collectives.transport.local import run_local
from sparsecomm.layout import Layout, Layouts
from sparsecomm.matrix_store import renumber
from sparsecomm.plan_cache import PlanCache, plan_key
from sparsecomm.product import RankProduct
from sparsecomm.topology import Level, Topology
from tests.cli import sparsecomm
from tests.unit.test_store import assert_same

MATRIX, MACHINE = "rmat:9:6", "nodes:3,1"
Json = dict[str, Any]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPARSECOMM_CACHE", str(tmp_path / "plans"))
    return tmp_path / "plans"


def plan(*words: object) -> Json:
    ran = sparsecomm("plan", MATRIX, "-t", MACHINE, *words, "--json")
    assert (ran.rc, ran.stderr) == (0, "")
    return ran.json


def without(report: Json) -> Json:
    return {name: value for name, value in report.items() if name not in ("cache", "seconds", "partition")}


def cache_of(report: Json) -> tuple[int, int]:
    return report["cache"]["hits"], report["cache"]["misses"]


def test_second_plan_comes_from_the_cache(folder: Path, tmp_path: Path) -> None:
    first = plan("-o", tmp_path / "a")
    second = plan("-o", tmp_path / "b")
    assert (cache_of(first), cache_of(second)) == ((0, 2), (2, 0))
    assert without(first) == without(second)
    shards = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.npy"))
    for path in shards:
        np.testing.assert_array_equal(np.load(tmp_path / "a" / path), np.load(tmp_path / "b" / path))
    assert len(list(folder.iterdir())) == 2
    assert "2 of its parts from the cache" in sparsecomm("plan", MATRIX, "-t", MACHINE).stdout


def test_another_width_asks_for_another_choice_only(folder: Path) -> None:
    plan("-k", 1)
    again = plan("-k", 512)
    assert without(again) == without(plan("-k", 512, "--no-cache"))
    assert cache_of(again)[0] >= 1


@pytest.mark.parametrize(
    "words", [["-t", "nodes:1,3"], ["-t", "summit:1"], ["-p", "random"], ["-s", "direct"]], ids=lambda words: words[1]
)
def test_what_differs_is_not_found(words: list[str], folder: Path) -> None:
    plan()
    other = sparsecomm("plan", MATRIX, *(["-t", MACHINE] if "-t" not in words else []), *words, "--json").json
    # Counts depend on what was asked for; a product does not, where the machine and the partition are the same.
    assert other["cache"]["hits"] == (words == ["-s", "direct"] and plan()["chosen"] == "direct")
    assert sparsecomm("plan", "rmat:9:6:1", "-t", MACHINE, "--json").json["cache"]["hits"] == 0


def test_links_that_cost_something_else_are_another_machine() -> None:
    a, b = (Topology.parse(name) for name in ("uniform:2x2", "nodes:2,2"))
    assert plan_key("x", a, "cover") == plan_key("x", b, "cover") != plan_key("x", a, "direct")
    slow = Topology(a.name, (a.levels[0], Level("network", 1.0, 1e9)), a.groups)
    assert plan_key("x", slow, "cover") != plan_key("x", a, "cover") != plan_key("y", a, "cover")


def test_no_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert plan("--no-cache")["cache"] is None
    assert not folder.exists()
    monkeypatch.setenv("SPARSECOMM_CACHE", "")
    assert plan()["cache"] is None
    monkeypatch.delenv("SPARSECOMM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    assert cache_of(plan()) == (0, 2)
    assert len(list((folder / "sparsecomm" / "plans").iterdir())) == 2


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "header"])
def test_damage_is_a_miss(damage: str, folder: Path) -> None:
    first = plan("-s", "cover")
    largest = max(folder.rglob("*.npy"), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[-1] ^= 1
    if damage == "truncated":
        largest.write_bytes(data[:-8])
    elif damage == "flipped":
        largest.write_bytes(data)
    elif damage == "missing":
        largest.unlink()
    else:
        (largest.parents[0] / "header.json").write_text("{")
    second = plan("-s", "cover")
    assert cache_of(second) == (1, 1)
    assert without(first) == without(second)
    assert cache_of(plan("-s", "cover")) == (2, 0)


def test_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPARSECOMM_CACHE", str(tmp_path / "file"))
    assert cache_of(plan()) == (0, 2)


def test_folder_is_bounded(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path, max_bytes=10_000)

    def put(letter: str, size: int, age_s: float) -> None:
        key = letter * 32
        cache.put(key, key, lambda path: {"size": (path / "x").write_bytes(bytes(size))})
        if (tmp_path / key).exists():
            os.utime(tmp_path / key, (age_s, age_s))

    (tmp_path / "zebra").mkdir()
    (tmp_path / "zebra" / "stripes").write_bytes(bytes(20_000))
    for number, letter in enumerate("abcd"):
        put(letter, 3000, 1000.0 + number)
    assert sorted(path.name[0] for path in tmp_path.iterdir()) == ["b", "c", "d", "z"]
    assert PlanCache(tmp_path).get("b" * 32, lambda path, header: header["size"]) == 3000  # which makes it young again
    put("e", 3000, 2e9)
    assert sorted(path.name[0] for path in tmp_path.iterdir()) == ["b", "d", "e", "z"]
    put("f", 6000, 2e9)
    assert sorted(path.name[0] for path in tmp_path.iterdir()) == ["b", "d", "e", "z"]


def test_memory_is_bounded() -> None:
    cache = PlanCache(None)
    for number in range(100):
        cache.put(str(number), number, lambda path: {})
    kept = [number for number in range(100) if cache.get(str(number), lambda path, header: None) is not None]
    assert kept == list(range(84, 100))
    assert cache.to_json() == {"hits": 16, "misses": 84}


def _job(cache: list[PlanCache], strategy: str = "auto", spec: str = "nodes:2,1") -> list[RankProduct]:
    """Plan over threads and return the products; what they compute is checked against scipy."""
    topology = Topology.parse(spec)
    rng = np.random.default_rng(0)
    A = csr_array((rng.random((30, 30)) < 0.2).astype(np.float64))
    layout = Layout.block(30, 3)
    layouts = Layouts(layout, layout)
    x = rng.integers(-5, 5, (30, 4)).astype(np.float64)

    def body(transport: Any) -> RankProduct:
        own = layout.own_rows(transport.rank)
        rows = renumber(A, layouts)[own.start : own.stop]
        with DistMatrix.from_rows(
            rows, layouts, topology, transport, strategy=strategy, plans=cache[transport.rank]
        ) as matrix:
            np.testing.assert_array_equal(matrix @ x[own.start : own.stop], (A @ x)[own.start : own.stop])
            return matrix.product

    return run_local(3, body)


@pytest.mark.parametrize("strategy", ["auto", "cover"])
def test_in_the_job(strategy: str, tmp_path: Path) -> None:
    first, second = ([PlanCache(tmp_path) for _ in range(3)] for _ in range(2))
    made, found, kept = _job(first, strategy), _job(second, strategy), _job(second, strategy)
    for a, b, c in zip(made, found, kept, strict=True):
        assert_same(a, b)
        assert_same(a, c)
    per_rank = 1 + (strategy == "auto")
    assert [cache.to_json() for cache in first] == [{"hits": 0, "misses": n} for n in (per_rank, 1, 1)]
    assert [cache.to_json() for cache in second] == [{"hits": 2 * n, "misses": 0} for n in (per_rank, 1, 1)]


def test_one_rank_without_its_part_makes_all_plan_anew(tmp_path: Path) -> None:
    made = _job([PlanCache(tmp_path / str(rank)) for rank in range(3)], "cover")
    (entry,) = (tmp_path / "1").iterdir()
    (entry / "header.json").unlink()
    caches = [PlanCache(tmp_path / str(rank)) for rank in range(3)]
    for a, b in zip(made, _job(caches, "cover"), strict=True):
        assert_same(a, b)
    assert [cache.to_json() for cache in caches] == [{"hits": 0, "misses": 1}] * 3


def test_spmm_of_the_command_line(folder: Path) -> None:
    words = ("spmm", MATRIX, "-t", MACHINE, "--transport", "local", "--repeat", 1, "--check", "--json")
    first, second = (sparsecomm(*words).json for _ in range(2))
    assert (cache_of(first), cache_of(second)) == ((0, 2), (2, 0))
    assert first["executed"] == second["executed"]
    assert second["verified"]


def test_strategies_of_a_program_are_never_cached() -> None:
    assert is_built_in(*strategy_names(), get_strategy("cover"))
    assert not is_built_in("mine")
    assert not is_built_in(type(get_strategy("cover"))("cover", get_strategy("direct").schedule))
    assert choose({}, "cover") is get_strategy("cover")
