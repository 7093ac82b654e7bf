"""How many chunks a product is cut into: predicted, tried, and the same on all ranks."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest

from sparsecomm.apps.chunks import Tuning, likely_chunks
from sparsecomm.apps.matrix import DistMatrix
from sparsecomm.collectives.transport.local import run_local
from sparsecomm.cost import CostModel, Link
from sparsecomm.io.matrix import read_matrix
from sparsecomm.layout import Layout, Layouts
from sparsecomm.topology import Topology
from tests.cli import sparsecomm
from tests.matrix_cases import cases
from tests.pipeline_bodies import blocks, made


@pytest.mark.parametrize(
    ("steps", "starts", "width"),
    [([3.0, 5.0], 0.01, 64), ([3.0, 5.0], 1.0, 64), ([1.0, 9.0, 4.0], 0.05, 6), ([1.0, 0.0], 0.1, 64), ([8.0], 0.0, 9)],
)
def test_what_is_tried(steps: list[float], starts: float, width: int) -> None:
    """The best power of two by the formula, without and beside it."""
    tried = likely_chunks(steps, starts, width)

    def seconds(number: int) -> float:
        return sum(steps) / number + (number - 1) / number * max(steps) + number * starts

    best = min((1, 2, 4, 8, 16), key=seconds)
    assert tried[0] == 1
    assert tried == sorted(set(tried))
    assert min(best, width) in tried
    assert max(tried) <= min(width, 2 * best)


def test_nothing_to_start_and_something_to_hide() -> None:
    assert likely_chunks([1.0, 2.0], 0.0, 64) == [1, 8, 16]


@pytest.mark.parametrize(("slow", "kept"), [({1: 2.0, 2: 1.0, 4: 3.0}, 2), ({1: 1.0, 2: 0.99, 4: 1.5}, 1)])
def test_all_ranks_keep_what_the_slowest_likes(slow: dict[int, float], kept: int) -> None:
    """More chunks must win clearly; the first product with each number does not count."""

    def body(transport: Any) -> int | None:
        tuning, seen = Tuning([1, 2, 4], transport), []
        while tuning.kept is None:
            seen.append(tuning.begin())
            warm = len(seen) > 3
            tuning.took(slow[seen[-1]] / (1 + transport.rank) if warm else 100.0 / seen[-1])
        assert {number: seen.count(number) for number in (1, 2, 4)} == dict.fromkeys((1, 2, 4), 6)
        assert tuning.seconds == slow
        return tuning.kept

    assert run_local(3, body) == [kept] * 3


def test_products_are_right_while_numbers_are_tried() -> None:
    def body(transport: Any) -> None:
        case = cases(3)[0]
        links = tuple(Link(1e-12, 1e6, 1e6) for _ in case.topology.levels)
        cost = CostModel(case.topology, memory_Bps=1e9, links=links)
        with (
            made(case, "reduce", transport) as whole,
            made(case, "reduce", transport, chunks="auto", cost=cost) as tuned,
        ):
            x = blocks(whole, "cols", case, transport.rank, (5,))[0]
            begin, count = time.perf_counter(), 0
            while tuned.tuning(5).kept is None:
                np.testing.assert_array_equal(tuned @ x, whole @ x)
                count += 1
            assert count == 6 * len(tuned.tuning(5).seconds)
            assert tuned.tuning(5).seconds.keys() >= {1, 5}
            assert 0 < tuned.waited_s < time.perf_counter() - begin
            np.testing.assert_array_equal(tuned @ x, whole @ x)

    run_local(3, body, deadline_s=200)


def test_the_cost_given_decides_about_plan_and_chunks() -> None:
    """Links that cost nothing to start make chunks worth a trial; links that cost nothing else, few messages."""
    matrix, topology, layout = read_matrix("rmat:8:6"), Topology.parse("uniform:2x2"), Layout.block(256, 4)
    near, layouts = Link(1e-12, 1e15, 1e15), Layouts(layout, layout)

    def body(transport: Any) -> list[tuple[bool, int | None]]:
        own, found = layout.own_rows(transport.rank), []
        for latency_s, rate_Bps in ((1e-12, 1e3), (1.0, 1e15)):
            cost = CostModel(topology, 1e15, (near, Link(latency_s, rate_Bps, rate_Bps)))
            rows = matrix[own.start : own.stop]
            with DistMatrix.from_rows(rows, layouts, topology, transport, width=8, chunks="auto", cost=cost) as made:
                found.append((made.product.strategy.startswith("cover"), made.tuning(8).kept))
        return found

    assert run_local(4, body) == [[(True, None), (False, 1)]] * 4


def test_command() -> None:
    """Rows and bytes are those of the plan, messages as many for every chunk."""
    words = ("spmm", "er:300:4", "-n", "2", "-t", "uniform:2x1", "-k", "5", "--transport", "local", "--check", "--json")
    report = json.loads(sparsecomm(*words, "--chunks", "3").stdout)
    planned, done = report["strategies"][report["chosen"]], report["executed"]
    assert (report["chunks"], report["chunks_tried"], report["verified"]) == (3, None, True)
    assert (done["rows"], done["bytes"]) == (planned["rows"], planned["bytes"])
    assert done["messages"] == {level: 3 * number for level, number in planned["messages"].items()}
    assert 0 < report["exposed_s"]["mean"] <= report["exposed_s"]["max"] <= report["time_s"]["max"]


@pytest.mark.parametrize(
    ("words", "said"), [(["--chunks", "9", "-k", "4"], "cannot cut 4 columns"), (["--chunks", "x"], "nor auto")]
)
def test_refused(words: list[str], said: str) -> None:
    run = sparsecomm("spmm", "er:9:2", *words)
    assert run.rc == 2
    assert said in run.stderr
