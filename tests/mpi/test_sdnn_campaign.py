"""Categories of the official network and of generated ones, in every mode and on every number of ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks._machine import machine, machine_text
from sparsecomm.apps.sdnn.challenge import read_truth
from sparsecomm.apps.sdnn.check import plain_categories
from sparsecomm.apps.sdnn.problem import SdnnOptions, open_problem
from tests.jobs import ROOT
from tests.sdnn_cases import MODES, TOPOLOGIES, run_cases

Json = dict[str, Any]
TABLE = ROOT / "benchmarks" / "results" / "sdnn_campaign.md"
COMMAND = "python -m pytest -m campaign --timeout 3600 tests/mpi/test_sdnn_campaign.py"

OFFICIAL = "official 1024"
# Images of the networks; their layers are 120, and of the official one also 30.
GENERATED = {"radixnet:1024": 1200, "radixnet:4096": 600, "radixnet:16384": 150}
BEGINS = tuple(f"| {name} | " for name in (OFFICIAL, *GENERATED))
NETWORKS = [(OFFICIAL, 30), (OFFICIAL, 120), *((name, 120) for name in GENERATED)]


def options_of(network: str, layers: int, data_dir: Any) -> Json:
    if network != OFFICIAL:
        return {"network": network, "layers": layers, "inputs": GENERATED[network]}
    folder = (data_dir / "sparse_dnn").path
    truth = folder / "neuron1024-l120-categories_subset.mtx"
    return {"network": str(folder), "layers": layers, "truth": str(truth)}


def case_of(network: str, layers: int, mode: str, ranks: int, folder: Path, data_dir: Any, **more: Any) -> Json:
    found = str(folder / f"{mode}.{ranks}.tsv")
    options = {**options_of(network, layers, data_dir), "mode": mode, "categories": found, **more}
    return {"topology": TOPOLOGIES[ranks], "options": options}


def check(case: Json, report: Json, wanted: Any) -> None:
    assert np.array_equal(read_truth(Path(case["options"]["categories"])), wanted), report
    assert report["categories"] == wanted.size
    assert report["verified"] is (True if "truth" in case["options"] else None)
    exchanged = sum(report["rows"].values())
    assert (exchanged > 0) == (report["groups"] < report["ranks"])


def test_official_categories(data_dir: Any, tmp_path: Path) -> None:
    truth = read_truth(data_dir / "sparse_dnn" / "neuron1024-l120-categories_subset.mtx")
    assert truth.size == 19
    two = [
        case_of(OFFICIAL, 120, "data", 2, tmp_path, data_dir, rebalance=2),
        case_of(OFFICIAL, 30, "model", 2, tmp_path, data_dir),
    ]
    for case, report in zip(two, run_cases(2, two, tmp_path), strict=True):
        check(case, report, truth)
    three = [case_of(OFFICIAL, 30, "hybrid", 3, tmp_path, data_dir, rebalance=2, strategy="hierarchical")]
    check(three[0], run_cases(3, three, tmp_path, "openmpi")[0], truth)


@pytest.mark.campaign
@pytest.mark.parametrize("ranks", TOPOLOGIES)
@pytest.mark.parametrize("network", NETWORKS, ids=[f"{name}-{layers}" for name, layers in NETWORKS])
def test_campaign(network: tuple[str, int], ranks: int, data_dir: Any, tmp_path: Path) -> None:
    name, layers = network
    options = options_of(name, layers, data_dir)
    problem = open_problem(SdnnOptions(**{**options, "truth": Path(options["truth"]) if "truth" in options else None}))
    wanted = plain_categories(problem.network, problem.inputs)
    if problem.truth is not None:
        assert np.array_equal(wanted, problem.truth)
    cases = [case_of(name, layers, mode, ranks, tmp_path, data_dir) for mode in MODES]
    reports = run_cases(ranks, cases, tmp_path)
    for case, report in zip(cases, reports, strict=True):
        check(case, report, wanted)
    _write_line(_row(name, layers, ranks, reports))


def _row(network: str, layers: int, ranks: int, reports: list[Json]) -> str:
    found = {report["categories"] for report in reports}
    moved = " | ".join(f"{sum(report['bytes'].values()) / 1e6:,.1f}" for report in reports[1:])
    checked = "official truth, scipy" if network == OFFICIAL else "scipy"
    return (
        f"| {network} | {layers} | {reports[0]['inputs']['count']:,} | {ranks} | {TOPOLOGIES[ranks]} "
        f"| {', '.join(map(str, found))} | {checked} | {moved} |"
    )


def _write_line(row: str) -> None:
    """Put a line into the table, in place of one of the same network and ranks; the others stay."""
    old = TABLE.read_text().splitlines() if TABLE.exists() else []
    lines = [line for line in old if line.startswith(BEGINS) and _place(line) != _place(row)] + [row]
    facts = {**machine(), "command": COMMAND}
    text = [
        "# Categories of sparse networks, checked",
        "",
        "`sdnn` in the modes data, model and hybrid, on every number of ranks. All find the same categories,",
        "those of the official truth (of the first 1,200 images) and of a plain loop of scipy over all images.",
        "MB are what all ranks sent for all layers; `data` sends nothing.",
        "",
        "```text",
        machine_text(facts),
        "```",
        "",
        "| network | layers | images | ranks | topology | categories | equal to | MB, model | MB, hybrid |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *sorted(lines, key=_place),
        "",
    ]
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text("\n".join(text))


def _place(line: str) -> tuple[int, int]:
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    return NETWORKS.index((cells[0], int(cells[1]))), int(cells[3])
