"""The run-time guard: two plans run, all ranks keep the same one, and the choice is found again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from sparsecomm.apps import trial
from sparsecomm.apps.matrix import DistMatrix
from sparsecomm.apps.row_planner import RowPlanner
from sparsecomm.collectives.transport.local import run_local
from sparsecomm.cost import CostModel
from sparsecomm.layout import Layout, Layouts
from sparsecomm.plan_cache import PlanCache
from sparsecomm.topology import Topology
from tests.cli import sparsecomm

TOPOLOGY = Topology.parse("nodes:2,1,2")
LAYOUT = Layout.block(40, 5)
A = csr_array((np.random.default_rng(1).random((40, 40)) < 0.2).astype(np.float64))
X = np.random.default_rng(2).integers(-9, 9, (40, 8)).astype(np.float64)


def _kept(**options: Any) -> list[str]:
    """Return what each rank kept; products with it are right."""

    def body(transport: Any) -> str:
        own = LAYOUT.own_rows(transport.rank)
        rows, layouts = A[own.start : own.stop], Layouts(LAYOUT, LAYOUT)
        plans = options.get("plans", {}).get(transport.rank)
        with DistMatrix.from_rows(rows, layouts, TOPOLOGY, transport, width=8, guard=True, plans=plans) as matrix:
            np.testing.assert_array_equal(matrix @ X[own.start : own.stop], (A @ X)[own.start : own.stop])
            np.testing.assert_array_equal(matrix.T @ X[own.start : own.stop], (A.T @ X)[own.start : own.stop])
            return matrix.product.strategy

    return run_local(5, body)


def _best_two() -> list[str]:
    def body(transport: Any) -> list[str]:
        own = LAYOUT.own_rows(transport.rank)
        planner = RowPlanner(A[own.start : own.stop], Layouts(LAYOUT, LAYOUT), TOPOLOGY, transport)
        found = planner.candidates("auto", CostModel(TOPOLOGY), 8, 8)
        best, *others = sorted(found.values(), key=lambda one: one.estimate.total_s)
        other = next(one for one in others if one.volume != best.volume)
        assert trial._best_two(found)[0].name == best.strategy.name
        assert {one.name for one in trial._best_two(found)} == {best.strategy.name, other.strategy.name}
        return [one.name for one in trial._best_two(found)]

    return run_local(5, body)[0]


@pytest.mark.parametrize("faster", [0, 1])
def test_all_ranks_keep_the_faster(faster: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = []

    def timed(matrices: list[DistMatrix], width: int, dtype: np.dtype[Any], transport: Any) -> list[float]:
        calls.append(transport.rank)
        seconds = np.full(2, transport.rank + 1.0)
        seconds[faster] = 0.5
        return transport.reduce(seconds, "max").tolist()

    monkeypatch.setattr(trial, "_time", timed)
    plans = {rank: PlanCache(tmp_path) for rank in range(5)}
    assert _kept(plans=plans) == [_best_two()[faster]] * 5
    assert sorted(calls) == list(range(5))
    again = {rank: PlanCache(tmp_path) for rank in range(5)}
    assert _kept(plans=again) == [_best_two()[faster]] * 5
    assert len(calls) == 5


def test_times_are_those_of_products() -> None:
    assert set(_kept()) <= set(_best_two())
    assert len(set(_kept())) == 1


def test_one_rank_has_nothing_to_choose() -> None:
    ran = sparsecomm("spmm", "grid2d:8", "--transport", "local", "--guard", "--repeat", 1, "--check", "--json")
    assert ran.rc == 0
    assert list(ran.json["guard"]["seconds"]) == [ran.json["chosen"]]


def test_guard_of_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSECOMM_CACHE", str(tmp_path))
    words = ("spmm", "rmat:8", "-t", "uniform:2x2", "--transport", "local", "--guard", "--repeat", 1, "--check")
    first, second = (sparsecomm(*words, "--json").json for _ in range(2))
    assert (
        first["chosen"] == first["guard"]["kept"] == min(first["guard"]["seconds"], key=first["guard"]["seconds"].get)
    )
    assert (first["guard"]["cached"], second["guard"]["cached"]) == (False, True)
    assert second["guard"]["seconds"] == first["guard"]["seconds"]
    assert f"kept {first['chosen']}, as measured before" in sparsecomm(*words).stdout
    assert sparsecomm(*words[:6], "--json").json["guard"] is None


@pytest.mark.parametrize("words", [["-s", "direct"], ["--plan", "plan"]])
def test_guard_needs_a_choice(words: list[str]) -> None:
    ran = sparsecomm("spmm", "grid2d:8", "-t", "uniform:1x2", "--transport", "local", "--guard", *words)
    assert (ran.rc, ran.stdout) == (2, "")
    assert "--guard chooses between two plans" in ran.stderr
