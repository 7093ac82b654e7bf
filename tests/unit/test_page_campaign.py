"""Pages of real plans and of a run on a virtual cluster in a real browser: checked, and how quick they are."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks._machine import machine, machine_text
from tests.chromium import Browser, chromium
from tests.cluster.conftest import clusters
from tests.jobs import BIN, ROOT
from tests.page_checks import check_bars, check_map, check_page

pytest.importorskip("plotly", reason="no plotly here; `make test` installs it")

TABLE = ROOT / "benchmarks" / "results" / "page_campaign.md"
COMMAND = "python -m pytest -m campaign --timeout 3600 tests/unit/test_page_campaign.py"
PLANNED = {"summit:8": "ego-twitter.npz", "summit:512": "rmat:20", "summit:4608": "rmat:20"}
NUM_PAGES = len(PLANNED) + 1


@pytest.fixture(scope="module")
def rows() -> Iterator[list[str]]:
    """Lines of the table; written where all pages were made and right."""
    found: list[str] = []
    yield found
    if len(found) == NUM_PAGES:
        _write_table(found)


@pytest.mark.campaign
@pytest.mark.parametrize("topology", PLANNED)
def test_planned(topology: str, rows: list[str], data_dir: Any, tmp_path: Path) -> None:
    name = PLANNED[topology]
    matrix = str(data_dir / "matrices" / name) if "." in name else name
    _sparsecomm("plan", matrix, "-t", topology, "--html", tmp_path / "page.html")
    rows.append(_row(f"{name} planned for {topology}", tmp_path / "page.html"))


@pytest.mark.campaign
@pytest.mark.cluster
def test_measured(rows: list[str], data_dir: Any, tmp_path: Path) -> None:
    matrix = str(data_dir / "matrices" / "ego-twitter.npz")
    with clusters("page") as one:
        one.up("--nodes", "4")
        job = one.run(["sparsecomm", "spmm", matrix, "--repeat", "5", "--profile", str(tmp_path / "run")])
    assert job.rc == 0, job
    _sparsecomm("report", tmp_path / "run", "--html", tmp_path / "page.html")
    rows.append(_row("ego-twitter.npz measured on a virtual cluster of 4 x 2", tmp_path / "page.html"))


def _sparsecomm(*words: object) -> None:
    subprocess.run([str(BIN["mpich"] / "sparsecomm"), *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def _row(what: str, page: Path) -> str:
    chromium()
    with Browser() as browser:
        paint_s = check_page(browser, page)
        check_bars(browser, page)
        for key in ("ranks", "nodes"):
            check_map(browser, page, key)
        assert browser.complaints == []
    size = f"{page.stat().st_size / 1e6:.1f} MB"
    return f"| {what} | {size} | {paint_s:.2f} s |"


def _write_table(rows: list[str]) -> None:
    lines = [
        "# Pages of reports, checked in Chromium",
        "",
        "Every view is reached by the keyboard; no script fails and the console stays empty; the bars of the chosen",
        "strategy and the brightest cells of both maps say, under the pointer, what the JSON in the page says.",
        "",
        "```text",
        machine_text({**machine(), "command": COMMAND}),
        "```",
        "",
        "| page | size | first paint |",
        "| --- | --- | --- |",
        *rows,
        "",
    ]
    TABLE.write_text("\n".join(lines))
