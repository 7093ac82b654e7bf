"""Ranks that plan together, as threads, make what one process makes for all of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks._machine import machine, machine_text
from sparsecomm.collectives.transport.local import run_local
from sparsecomm.io.matrix import read_matrix
from sparsecomm.table import Offline, Router, Table
from tests.jobs import ROOT
from tests.planning_bodies import (
    ROUTED,
    Input,
    block_inputs,
    check_counts,
    check_products,
    check_remote,
    differences,
    random_inputs,
)

pytestmark = pytest.mark.usefixtures("small_parts")

Check = Callable[[Router, Input], None]
CHECKS = pytest.mark.parametrize("check", [check_remote, check_products, check_counts])
CAMPAIGN = (2, 3, 4, 7)
TABLE = ROOT / "benchmarks" / "results" / "planning_campaign.md"
COMMAND = "python -m pytest -m campaign --timeout 3600 tests/unit/test_inprocess_planning.py"
RANKS = pytest.mark.parametrize("num_ranks", [1, 2, 3, 4, 7])


def _run(num_ranks: int, check: Check, inputs: list[Input]) -> None:
    def body(router: Router) -> None:
        for given in inputs:
            check(router, given)

    run_local(num_ranks, body)


@CHECKS
@RANKS
def test_random_patterns(num_ranks: int, check: Check) -> None:
    _run(num_ranks, check, list(random_inputs(num_ranks)))


@pytest.mark.campaign
@pytest.mark.parametrize("num_ranks", CAMPAIGN)
def test_hundreds_of_random_patterns(num_ranks: int) -> None:
    inputs = list(random_inputs(num_ranks, num=50))
    for check in (check_products, check_counts):
        _run(num_ranks, check, inputs)
    _note(num_ranks, len(inputs))


def _note(num_ranks: int, num_cases: int) -> None:
    """Write the line of these ranks into the table, and keep those of others."""
    lines = TABLE.read_text().splitlines() if TABLE.exists() else []
    found = [re.fullmatch(r"\| (\d+) \| (\d+) \| (\d+) \| 0 \|", line) for line in lines]
    cases = {int(one[1]): int(one[2]) for one in found if one and int(one[3]) == int(one[2]) * len(ROUTED)}
    _write_table(cases | {num_ranks: num_cases})


def _write_table(cases: dict[int, int]) -> None:
    lines = [
        "# Plans made in the job and plans made offline, compared",
        "",
        "Random patterns, square and rectangular, with ranks that own nothing, on one node, one rank a node, uneven",
        f"and interleaved nodes, and sockets. Every rank plans from its own rows alone, by {len(ROUTED)} strategies:",
        f"{', '.join(ROUTED)}.",
        "In every case each rank's part of the product is, array by array, what planning in one process makes for it;",
        "volumes, bounds and fingerprints are equal.",
        "",
        "```text",
        machine_text({**machine(), "command": COMMAND}),
        "```",
        "",
        "| ranks | cases | products compared | differences |",
        "| --- | --- | --- | --- |",
        *(f"| {ranks} | {count} | {count * len(ROUTED)} | 0 |" for ranks, count in sorted(cases.items())),
        "",
    ]
    TABLE.write_text("\n".join(lines))


@CHECKS
@RANKS
@pytest.mark.parametrize("spec", ["radixnet:1024:0", "rmat:8:4"])
def test_generated(num_ranks: int, spec: str, check: Check) -> None:
    _run(num_ranks, check, list(block_inputs(read_matrix(spec), num_ranks))[-2:])


@CHECKS
@pytest.mark.parametrize("num_ranks", [4, 7])
@pytest.mark.parametrize("file", ["west0479.mtx.gz", "bcsstk13.mtx.gz", "cage10.mtx.gz"])
def test_real_matrices(data_dir: Path, num_ranks: int, file: str, check: Check) -> None:
    matrix = read_matrix(str(data_dir / f"matrices/{file}"))
    _run(num_ranks, check, list(block_inputs(matrix, num_ranks))[-1:])


def test_sixteen_ranks() -> None:
    given = next(block_inputs(read_matrix("er:300:6:1"), 16))
    for check in (check_products, check_counts):
        _run(16, check, [given])


@RANKS
def test_routes_are_the_same(num_ranks: int) -> None:
    """A route in a job delivers, rank by rank, what the stable sort of one table delivers."""
    rng = np.random.default_rng(num_ranks)
    rank = np.sort(rng.integers(0, num_ranks, 60)).astype(np.int32)
    to_rank = rng.integers(0, num_ranks, 60).astype(np.int32)
    whole = Table(rank, {"place": np.arange(60), "half": rng.random((60, 2)).astype(np.float32)})
    moved = Offline(num_ranks).route(whole, to_rank)

    def body(router: Router) -> None:
        (p,) = router.held
        got = router.route(whole.take(rank == p), to_rank[rank == p])
        expected = moved.take(moved.rank == p)
        assert not differences([got.rank, *got.columns.values()], [expected.rank, *expected.columns.values()])

    run_local(num_ranks, body)


def test_a_difference_would_be_found() -> None:
    """The comparison sees values, dtypes and shapes."""
    one = np.array([1, 2], dtype=np.int32)
    assert not differences({"a": 1}, {"a": 1})
    assert not differences([one, 3], [one.copy(), 3])
    for other in (one.astype(np.int64), np.array([1, 3], dtype=np.int32), one[:1], [1, 2]):
        assert differences([one], [other])
