"""Exports of a report, and comparing two: what others' programs read keeps their rules."""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparsecomm.apps.report.case import load_case
from sparsecomm.apps.report.trace import write_trace
from sparsecomm.apps.report.transfers import match
from sparsecomm.product_store import load_product
from tests.cli import sparsecomm

PLANNING = ("rmat:9", "-t", "uniform:2x2", "-k", "8")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two plans, and a run of the first."""
    folder = tmp_path_factory.mktemp("exports")
    for strategy in ("cover", "direct"):
        assert sparsecomm("plan", *PLANNING, "-s", strategy, "-o", folder / strategy).rc == 0
    run = ("--plan", folder / "cover", "--transport", "local", "--repeat", 3, "--profile", folder / "run")
    assert sparsecomm("spmm", *PLANNING, *run).rc == 0
    return folder


def check_rules(trace: dict[str, Any]) -> list[dict[str, Any]]:
    """Hold a trace against the rules of the format; return its events."""
    events = trace["traceEvents"]
    timed = [one for one in events if one["ph"] != "M"]
    assert events[: len(events) - len(timed)] == [one for one in events if one["ph"] == "M"]
    assert all(first["ts"] <= second["ts"] for first, second in pairwise(timed))
    for one in timed:
        assert one["ph"] in "Xsf"
        assert {"name", "pid", "tid", "ts"} <= one.keys()
        assert one["ts"] >= 0
        assert one["ph"] != "X" or one["dur"] >= 0
    ends = Counter((one["ph"], one["id"]) for one in timed if one["ph"] in "sf")
    assert set(ends.values()) <= {1}
    assert {number for phase, number in ends if phase == "s"} == {number for phase, number in ends if phase == "f"}
    assert all(one["bp"] == "e" for one in timed if one["ph"] == "f")
    return timed


def check_nesting(timed: list[dict[str, Any]]) -> None:
    """Spans of one thread lie inside each other or apart."""
    rows: dict[tuple[int, int], list[float]] = {}
    for one in sorted((one for one in timed if one["ph"] == "X"), key=lambda one: (one["ts"], -one["dur"])):
        stack = rows.setdefault((one["pid"], one["tid"]), [])
        while stack and stack[-1] <= one["ts"] + 1e-6:
            stack.pop()
        assert not stack or one["ts"] + one["dur"] <= stack[-1] + 1e-3, one
        stack.append(one["ts"] + one["dur"])


def test_a_trace_keeps_the_rules_of_its_format(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "trace.json.gz"
    assert sparsecomm("report", made / "run", "--trace", path).rc == 0
    timed = check_rules(json.loads(gzip.decompress(path.read_bytes())))
    check_nesting(timed)
    case = load_case(made / "run")
    flows = [one for one in timed if one["ph"] == "s"]
    assert len(flows) == 3 * case.traffic.count.sum()
    assert {one["pid"] for one in timed} == set(range(4))
    assert sum(one["ph"] == "X" for one in timed) == sum(len(rank.spans) for rank in case.ranks)


def test_a_long_trace_is_cut_and_says_so(made: Path, tmp_path: Path) -> None:
    case, path = load_case(made / "run"), tmp_path / "trace.json"
    transfers = match(case.ranks)
    note = write_trace(path, case, transfers, max_events=50)
    trace = json.loads(path.read_text())
    assert len(check_rules(trace)) <= 50
    assert "only the latest" in note
    assert trace["otherData"]["note"] == note


def test_a_plan_has_no_trace(made: Path, tmp_path: Path) -> None:
    ran = sparsecomm("report", made / "cover", "--trace", tmp_path / "trace.json")
    assert (ran.rc, ran.stdout) == (2, "")
    assert not list(tmp_path.iterdir())


def test_tables_and_matrices(made: Path, tmp_path: Path) -> None:
    files = ("--csv", tmp_path / "m.csv", "--npz", tmp_path / "m.npz", "--prometheus", tmp_path / "m.prom")
    ran = sparsecomm("report", made / "cover", *files, "--json")
    assert ran.rc == 0
    product = load_product(made / "cover")
    wanted = np.zeros((4, 4), dtype=np.int64)
    for plan, reverse in ((product.gather, False), (product.scatter, True)):
        for stage in plan.stages:
            np.add.at(wanted, (stage.dst, stage.src) if reverse else (stage.src, stage.dst), 8 * 4)
    with (tmp_path / "m.csv").open() as file:
        lines = list(csv.DictReader(file))
    found = np.zeros_like(wanted)
    for line in lines:
        found[int(line["src"]), int(line["dst"])] += int(line["bytes"])
    assert np.array_equal(found, wanted)
    with np.load(tmp_path / "m.npz") as arrays:
        assert np.array_equal(arrays["rank_bytes"], wanted)
        assert arrays["node_bytes"].tolist() == wanted.reshape(2, 2, 2, 2).sum(axis=(1, 3)).tolist()
    text = (tmp_path / "m.prom").read_text()
    names = dict(re.findall(r'^sparsecomm_bytes\{.*level="(\w+)"\} (\d+)$', text, re.MULTILINE))
    assert {name: int(value) for name, value in names.items()} == {
        name: level["bytes"] for name, level in ran.json["levels"].items()
    }
    assert all(re.match(r"^(# (HELP|TYPE) \w+ .*|\w+(\{.*\})? [0-9.e+-]+)$", line) for line in text.splitlines())


@pytest.mark.parametrize("kind", ["levels", "matrix", "messages", "nodes", "ranks"])
def test_pictures(made: Path, tmp_path: Path, kind: str) -> None:
    pytest.importorskip("matplotlib", reason="no matplotlib here; `make test` installs it")
    ran = sparsecomm("plot", kind, made / "run", "-o", tmp_path / "one.svg")
    assert ran.rc == 0, ran
    assert "</svg>" in (tmp_path / "one.svg").read_text()
    assert [file.name for file in tmp_path.iterdir()] == ["one.svg"]


def test_a_picture_of_an_unknown_format_is_refused(made: Path, tmp_path: Path) -> None:
    ran = sparsecomm("plot", "ranks", made / "run", "-o", tmp_path / "one.bmp")
    assert (ran.rc, ran.stdout) == (2, "")
    assert ".png, .svg, .pdf" in ran.stderr


def test_compare_finds_what_is_worse(made: Path) -> None:
    rules = ("--fail-if", "network.bytes > 1.05x")
    worse = sparsecomm("compare", made / "cover", made / "direct", *rules, "--json")
    assert worse.rc == 1
    assert worse.json["broken"] == ["network.bytes > 1.05x"]
    rows = [load_product(made / name).volume().rows[-1] for name in ("cover", "direct")]
    found = worse.json["figures"]["network.rows"]
    assert (found["first"], found["second"]) == tuple(rows)
    assert found["ratio"] == pytest.approx(rows[1] / rows[0])
    better = sparsecomm("compare", made / "direct", made / "cover", *rules, "--fail-if", "network.messages > 1e9")
    assert better.rc == 0
    assert "network.rows" in better.stdout


def test_a_plan_and_its_run_move_the_same(made: Path) -> None:
    names = ("rows", "bytes", "messages", "max_rank_bytes")
    rules = [word for name in names for sign in "><" for word in ("--fail-if", f"network.{name} {sign} 1x")]
    assert sparsecomm("compare", made / "cover", made / "run", *rules).rc == 0


@pytest.mark.parametrize(
    ("rule", "reason"),
    [("network.bytes", "is no rule"), ("network.bytes > much", "is no rule"), ("planet.bytes > 1x", "has no figure")],
)
def test_a_wrong_rule_is_refused(made: Path, rule: str, reason: str) -> None:
    ran = sparsecomm("compare", made / "cover", made / "direct", "--fail-if", rule)
    assert (ran.rc, ran.stdout) == (2, "")
    assert reason in ran.stderr
