"""`spmm --check` on real matrices: every rank count, partition, strategy, direction and type, or a sample of them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks._machine import machine, machine_text
from sparsecomm.launch.cli import main
from tests.jobs import ROOT
from tests.spmm_cases import DTYPES, METHODS, STRATEGIES, TOPOLOGIES, check, run_cases

Json = dict[str, Any]
WIDTH = 8
FILES = (
    "bcsstk13.mtx.gz",
    "c-62.mtx.gz",
    "cage10.mtx.gz",
    "cnr-2000.npz",
    "copter2.graph.gz",
    "ego-twitter.npz",
    "email-enron.npz",
    "gene_go_all.npz",
    "mdual.graph.gz",
    "soc-slashdot0902.npz",
    "west0479.mtx.gz",
    "xenon1.mtx.gz",
)
SMALL = ("bcsstk13.mtx.gz", "cage10.mtx.gz", "west0479.mtx.gz")
TABLE = ROOT / "benchmarks" / "results" / "spmm_campaign.md"
COMMAND = "python -m pytest -m campaign --timeout 3600 tests/mpi/test_spmm_campaign.py"


def test_every_file_is_in_the_campaign(data_dir: Any) -> None:
    assert sorted(path.name for path in (data_dir / "matrices").path.iterdir()) == sorted(FILES)


@pytest.mark.parametrize(("ranks", "mpi"), [(2, "mpich"), (3, "openmpi"), (4, "mpich"), (7, "mpich")])
def test_sample(ranks: int, mpi: str, data_dir: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(ranks)
    every = list(product(SMALL, METHODS, STRATEGIES, (False, True), DTYPES))
    picked = [every[i] for i in rng.choice(len(every), 6 if ranks < 7 else 3, replace=False)]
    cases = [_case(data_dir / "matrices" / one[0], ranks, tmp_path, *one[1:]) for one in picked]
    for case, report in zip(cases, run_cases(ranks, cases, tmp_path, mpi), strict=True):
        check(case, report)


@pytest.fixture(scope="module")
def rows() -> Iterator[dict[tuple[str, int], str]]:
    """Lines of the table by file and ranks; written where the campaign was whole and right."""
    found: dict[tuple[str, int], str] = {}
    yield found
    if len(found) == len(FILES) * len(TOPOLOGIES):
        _write_table(found)


@pytest.mark.campaign
@pytest.mark.parametrize("ranks", TOPOLOGIES)
def test_campaign(ranks: int, rows: dict[tuple[str, int], str], data_dir: Any, tmp_path: Path) -> None:
    every = list(product(FILES, METHODS, STRATEGIES, (False, True), DTYPES))
    cases = [_case(data_dir / "matrices" / one[0], ranks, tmp_path, *one[1:]) for one in every]
    reports = run_cases(ranks, cases, tmp_path)
    for case, report in zip(cases, reports, strict=True):
        check(case, report)
    for file in FILES:
        mine = [report for one, report in zip(every, reports, strict=True) if one[0] == file]
        rows[file, ranks] = _row(file, ranks, mine)


def _case(path: Path, ranks: int, folder: Path, method: str, strategy: str, transpose: bool, dtype: str) -> Json:
    """Return a case over a matrix that has been cut into shards once for all cases that share them."""
    shards = folder / f"{path.name}.{ranks}.{method}"
    if not shards.exists():
        assert main(["partition", str(path), "-t", TOPOLOGIES[ranks], "-m", method, "-o", str(shards), "--json"]) == 0
    options = {"matrix": str(shards), "width": WIDTH, "dtype": dtype, "strategy": strategy, "transpose": transpose}
    return {"topology": TOPOLOGIES[ranks], "options": {**options, "check": True}}


def _row(file: str, ranks: int, reports: list[Json]) -> str:
    matrix = reports[0]["matrix"]
    worst = [max(report["max_error"] for report in reports if report["dtype"] == dtype) for dtype in DTYPES]
    rows = sum(sum(report["executed"]["rows"].values()) for report in reports)
    errors = " | ".join(f"{error:.1e}" for error in worst)
    return (
        f"| {file} | {matrix['rows']:,} x {matrix['cols']:,} | {matrix['nnz']:,} | {ranks} | {TOPOLOGIES[ranks]} "
        f"| {len(reports)} | {rows:,} | {errors} |"
    )


def _write_table(rows: dict[tuple[str, int], str]) -> None:
    facts = {**machine(), "command": COMMAND}
    lines = [
        "# Products of real matrices, checked",
        "",
        f"`spmm --check` with {WIDTH} columns: partitions {' and '.join(METHODS)}, strategies {', '.join(STRATEGIES)},",
        "A and its transpose, float32 and float64. Every case is right (float32 within 1e-5, float64 within 1e-12 of",
        "scipy in float64, max |Y - ref| / (|A||X|)), and rows, bytes and messages executed at every level equal the",
        "plan exactly. `rows moved` is the sum over the cases of a line, at all levels.",
        "",
        "```text",
        machine_text(facts),
        "```",
        "",
        "| file | shape | nonzeros | ranks | topology | cases | rows moved | worst, float32 | worst, float64 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *(rows[key] for key in sorted(rows)),
        "",
    ]
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text("\n".join(lines))
