"""The command line as a contract: JSON, exit codes, and directories that one command writes and another reads."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparsecomm.collectives.strategy import strategy_names
from sparsecomm.io.matrix import read_matrix
from sparsecomm.partition.registry import partition_rows
from sparsecomm.product_store import load_product
from sparsecomm.topology import Topology
from tests.cli import sparsecomm, without_progress
from tests.jobs import run
from tests.unit.test_store import assert_same

Json = dict[str, Any]
MATRIX, MACHINE = "rmat:9:6", "nodes:3,1"
LEVELS = ["node", "network"]
UNCOUNTED = ("tree", "cover-greedy")
SHARED = {
    "schema": str,
    "matrix": {"name": str, "rows": int, "cols": int, "nnz": int, "fingerprint": str},
    "topology": {"name": str, "ranks": int, "nodes": int, "levels": list},
    "partition": {"method": str, "seconds": float, "imbalance": {"rows": float, "nnz": float, "node_nnz": float}},
    "width": int,
    "dtype": str,
    "strategies": {
        name: {
            **{noun: dict.fromkeys(LEVELS, int) for noun in ("rows", "messages", "bytes", "max_rank_rows")},
            "max_node_rows": {"in": int, "out": int},
            "gap_percent": {"network": float, "busiest_node": float},
            "phases": int,
            "max_rank_bytes": int,
            "predicted_s": float,
            "predicted_parts_s": {
                **{f"{level} {part}": float for level in LEVELS for part in ("latency", "rank port", "staging")},
                **dict.fromkeys(("network node port", "pack", "launch", "product"), float),
            },
            "limit": str,
        }
        for name in strategy_names()
        if name not in UNCOUNTED
    }
    | dict.fromkeys(UNCOUNTED, type(None)),
    "not_counted": dict.fromkeys(UNCOUNTED, str),
    "two_party_minimum": {"network": int},
    "lower_bound": {"network": int, "busiest_node": int},
}
_ENTERING = {"rows": int, "messages": int, "max_in": int, "max_out": int, "mean": float}
_LOADS = [f"{where}{what}" for what in ("rows", "nnz", "memory") for where in ("", "node_")]
JUDGED_BY = ("direct", "hierarchical", "reduce", "cover")
_PASSED = [name for name in strategy_names() if name not in JUDGED_BY]
PARTITION = {
    **SHARED,
    "strategies": SHARED["strategies"] | dict.fromkeys(_PASSED, type(None)),
    "not_counted": dict.fromkeys(_PASSED, str),
    "metrics": {
        "levels": {level: dict.fromkeys(("gather", "reduce", "cover"), _ENTERING) for level in LEVELS},
        "imbalance": dict.fromkeys(_LOADS, float),
        "edge_cut": int,
        "predicted_s": float,
    },
}
PLAN = {**SHARED, "chosen": str, "calibration": type(None), "cache": type(None), "seconds": float}
SPMM = {
    **PLAN,
    "guard": type(None),
    "ranks": int,
    "transpose": bool,
    "gpu": bool,
    "gpu_transports": type(None),
    "executed": {
        noun: dict.fromkeys(LEVELS, int) for noun in ("rows", "bytes", "messages", "bytes_copied", "bytes_loaded")
    },
    "time_s": {"median": float, "min": float, "max": float},
    "exposed_s": {"mean": float, "max": float},
    "chunks": int,
    "chunks_tried": type(None),
    "max_error": float,
    "verified": bool,
}


def assert_form(found: Any, form: Any, where: str = "report") -> None:
    """Compare keys and types, down to every number."""
    if isinstance(form, dict):
        assert list(found) == list(form) or found.keys() == form.keys(), where
        for key, inner in form.items():
            assert_form(found[key], inner, f"{where}.{key}")
    else:
        assert type(found) is form, f"{where} is {found!r}, not a {form.__name__}"


def pairs_that_move(matrix: str, machine: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Return rows per level and (in, out) network rows per node of `direct`, by a set of (owner, user, column)."""
    A, topology = read_matrix(matrix).tocoo(), Topology.parse(machine)
    owner = partition_rows(A.tocsr(), topology, "block").rows.owners()
    moved = {(int(owner[c]), int(owner[r]), int(c)) for r, c in zip(*A.coords, strict=True) if owner[r] != owner[c]}
    node = topology.rank_to_node
    rows, by_node = [0, 0], [[0, 0] for _ in range(topology.num_nodes)]
    for src, dst, _ in moved:
        rows[int(node[src] != node[dst])] += 1
        if node[src] != node[dst]:
            by_node[node[dst]][0] += 1
            by_node[node[src]][1] += 1
    return rows, [(into, out) for into, out in by_node]


def test_json_of_plan() -> None:
    ran = sparsecomm("plan", MATRIX, "-t", MACHINE, "-k", 16, "--dtype", "float64", "--json")
    assert (ran.rc, ran.stderr) == (0, "")
    report = ran.json
    assert_form(report, PLAN)
    assert report["schema"] == "sparsecomm.plan/1"
    A = read_matrix(MATRIX)
    assert report["matrix"] | {"fingerprint": ""} == {
        "name": MATRIX, "rows": 512, "cols": 512, "nnz": A.nnz, "fingerprint": ""
    }  # fmt: skip
    assert report["topology"] == {"name": MACHINE, "ranks": 4, "nodes": 2, "levels": LEVELS}
    assert (report["width"], report["dtype"]) == (16, "float64")
    nnz = np.diff(A.indptr[[0, 128, 256, 384, 512]])
    assert report["partition"]["imbalance"]["rows"] == 1.0
    assert report["partition"]["imbalance"]["nnz"] == pytest.approx(nnz.max() / nnz.mean(), abs=1e-6)
    nodes = np.array([nnz[:3].sum(), nnz[3]])
    assert report["partition"]["imbalance"]["node_nnz"] == pytest.approx(nodes.max() / nodes.mean(), abs=1e-6)


def best_of(entries: dict[str, Any]) -> str:
    """Return the entry with the least time, `direct` unless that takes at least a tenth less."""
    best = min(entries, key=lambda name: entries[name]["predicted_s"])
    kept = "direct" in entries and entries[best]["predicted_s"] > 0.9 * entries["direct"]["predicted_s"]
    return "direct" if kept else best


def test_plans_that_a_rank_can_hold() -> None:
    command = ("plan", "rmat:9:6", "-t", "uniform:4x2")
    free = {name: entry for name, entry in sparsecomm(*command, "--json").json["strategies"].items() if entry}
    most = sorted(entry["max_rank_bytes"] for entry in free.values())[len(free) // 2]
    fit = {name: entry for name, entry in free.items() if entry["max_rank_bytes"] <= most}
    report = sparsecomm(*command, "--memory", most, "--json").json
    case = sparsecomm(*command, "--what-if", "--memory", most, "--json").json["cases"][0]
    for found in (report, case):
        assert {name for name, entry in found["strategies"].items() if entry} == set(fit) < set(free)
        assert found["chosen"] == best_of(fit)
        assert f"more than the {most:,} allowed" in found["not_counted"]["allgather"]
    assert sparsecomm(*command, "--memory", most).rc == 0
    for words in (("-s", "allgather", "--memory", most), ("--memory", "1K"), ("--memory", "much")):
        ran = sparsecomm(*command, *words)
        assert (ran.rc, ran.stdout, "memory" in ran.stderr) == (2, "", True)


def test_volumes_of_plan_by_brute_force() -> None:
    report = sparsecomm("plan", MATRIX, "-t", MACHINE, "-k", 16, "--dtype", "float64", "--json").json
    rows, by_node = pairs_that_move(MATRIX, MACHINE)
    direct = report["strategies"]["direct"]
    assert direct["rows"] == dict(zip(LEVELS, rows, strict=True))
    for entry in filter(None, report["strategies"].values()):
        assert entry["bytes"] == {level: count * 16 * 8 for level, count in entry["rows"].items()}
        assert entry["rows"]["network"] >= report["lower_bound"]["network"]
        bounds = report["lower_bound"]
        counts = {"network": entry["rows"]["network"], "busiest_node": max(entry["max_node_rows"].values())}
        gaps = {name: 100 * (count / bounds[name] - 1) for name, count in counts.items()}
        assert entry["gap_percent"] == pytest.approx(gaps, abs=1e-3)
    assert direct["max_node_rows"] == {"in": max(i for i, _ in by_node), "out": max(o for _, o in by_node)}
    for entry in filter(None, report["strategies"].values()):
        assert sum(entry["predicted_parts_s"].values()) == pytest.approx(entry["predicted_s"])
        assert entry["predicted_parts_s"][entry["limit"]] == max(entry["predicted_parts_s"].values())
    assert report["chosen"] == best_of({name: entry for name, entry in report["strategies"].items() if entry})
    assert report["two_party_minimum"]["network"] >= report["lower_bound"]["network"] > 0


def test_show_nodes() -> None:
    shown = sparsecomm("plan", MATRIX, "-t", MACHINE, "-s", "direct", "--show", "nodes")
    assert shown.rc == 0
    table = shown.stdout[shown.stdout.index("network rows by node") :]
    lines = [[int(word.replace(",", "")) for word in re.findall(r"[\d,]+", line)] for line in table.splitlines()]
    _, by_node = pairs_that_move(MATRIX, MACHINE)
    pairs = [[0, 1], [0, by_node[0][1]], [1, by_node[1][1]]]
    assert [line for line in lines if line] == [[0, 3, *by_node[0]], [1, 1, *by_node[1]], *pairs]


def test_show_stages() -> None:
    shown = sparsecomm("plan", MATRIX, "-t", MACHINE, "-s", "hierarchical", "--show", "stages")
    assert shown.rc == 0
    assert "network" in shown.stdout.split("planned in")[1]


def test_json_of_partition() -> None:
    ran = sparsecomm("partition", MATRIX, "-t", MACHINE, "-m", "metis", "--json")
    assert ran.rc == 0
    assert_form(ran.json, PARTITION)
    entering = ran.json["metrics"]["levels"]["network"]
    assert entering["gather"]["rows"] == ran.json["strategies"]["hierarchical"]["rows"]["network"]
    assert entering["cover"]["rows"] == ran.json["two_party_minimum"]["network"]
    assert ran.json["schema"] == "sparsecomm.partition/1"
    assert ran.json["partition"]["method"] == "metis"


@pytest.mark.parametrize("transpose", [False, True])
def test_json_of_spmm(transpose: bool) -> None:
    options = ["-t", MACHINE, "-k", 4, "-s", "reduce", "--repeat", 2, "--transport", "local", "--json"]
    ran = sparsecomm("spmm", MATRIX, *options, "--check", *(["--transpose"] if transpose else []))
    assert (ran.rc, ran.stderr) == (0, "")
    report = ran.json
    assert_form(report, SPMM)
    assert report["schema"] == "sparsecomm.spmm/1"
    assert (report["ranks"], report["chosen"], report["transpose"], report["verified"]) == (
        4,
        "reduce",
        transpose,
        True,
    )
    assert 0 < report["max_error"] <= 1e-5
    for noun in ("rows", "bytes", "messages"):
        assert report["executed"][noun] == report["strategies"]["reduce"][noun]
    assert report["time_s"]["min"] <= report["time_s"]["median"] <= report["time_s"]["max"]
    planned = sparsecomm("plan", MATRIX, "-t", MACHINE, "-k", 4, "-s", "reduce", "--json").json
    for same in ("matrix", "topology", "strategies", "two_party_minimum", "lower_bound", "width", "dtype"):
        assert report[same] == planned[same], same


def test_spmm_without_check_says_so() -> None:
    report = sparsecomm("spmm", MATRIX, "--repeat", 1, "-k", 2, "--json").json
    assert (report["ranks"], report["max_error"], report["verified"]) == (1, None, None)


def test_json_of_topology() -> None:
    ran = sparsecomm("topology", "summit:2", "--json")
    assert (ran.rc, ran.stderr) == (0, "")
    assert ran.json["schema"] == "sparsecomm.topology/1"
    assert ran.json["ranks"] == 12
    topology = Topology.from_dict({name: ran.json[name] for name in ("name", "levels", "groups")})
    np.testing.assert_array_equal(topology.groups, Topology.parse("summit:2").groups)


def test_topology_toml_round_trip(tmp_path: Path) -> None:
    file = tmp_path / "machine.toml"
    file.write_text(sparsecomm("topology", "nodes:3,1", "--toml").stdout)
    one, other = (sparsecomm("plan", MATRIX, "-t", spec, "--json").json for spec in (MACHINE, file))
    assert one["strategies"] == other["strategies"]


def test_topology_is_drawn() -> None:
    ran = sparsecomm("topology", "nodes:2,1")
    assert ran.rc == 0
    assert re.findall(r"(node|rank) (\d)", ran.stdout) == [
        ("node", "0"), ("rank", "0"), ("rank", "1"), ("node", "1"), ("rank", "2")
    ]  # fmt: skip


@pytest.mark.parametrize("method", ["block", "metis"])
def test_partition_plan_spmm_through_directories(method: str, tmp_path: Path) -> None:
    cut, plan = tmp_path / "cut", tmp_path / "plan"
    written = sparsecomm("partition", MATRIX, "-t", MACHINE, "-m", method, "-o", cut, "--json")
    assert written.rc == 0
    planned = sparsecomm("plan", cut, "-t", MACHINE, "-s", "hierarchical", "-o", plan, "--json")
    assert (planned.rc, planned.stderr) == (0, "")
    at_once = sparsecomm("plan", MATRIX, "-t", MACHINE, "-p", method, "-s", "hierarchical", "--json").json
    by_layout = sparsecomm("plan", MATRIX, "-t", MACHINE, "-p", cut, "-s", "hierarchical", "--json").json
    for report in (written.json, at_once, by_layout):
        counted = [name for name, entry in report["strategies"].items() if entry]
        assert (set(counted) == set(JUDGED_BY)) == (report["schema"] == "sparsecomm.partition/1")
        assert all(report["strategies"][name] == planned.json["strategies"][name] for name in counted)
        assert report["matrix"] == planned.json["matrix"]
    product = load_product(plan)
    assert product.volume().rows.tolist() == list(planned.json["strategies"]["hierarchical"]["rows"].values())
    for matrix in (cut, MATRIX):
        options = ["--plan", plan, "-k", 3, "--repeat", 1, "--transport", "local", "--check", "--json"]
        ran = sparsecomm("spmm", matrix, *options)
        assert ran.rc == 0, ran
        assert (ran.json["chosen"], ran.json["verified"], ran.json["ranks"]) == ("hierarchical", True, 4)
        assert ran.json["executed"]["rows"] == planned.json["strategies"]["hierarchical"]["rows"]


def test_a_plan_is_written_the_same_each_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert sparsecomm("plan", MATRIX, "-t", MACHINE, "-s", "reduce", "-o", tmp_path / name).rc == 0
    assert_same(load_product(tmp_path / "one"), load_product(tmp_path / "two"))
    assert json.loads((tmp_path / "one/header.json").read_text()) == json.loads(
        (tmp_path / "two/header.json").read_text()
    )


def test_words_go_to_the_terminal(tmp_path: Path) -> None:
    for argv in (
        ["plan", MATRIX, "-t", MACHINE, "-o", tmp_path / "plan"],
        ["partition", MATRIX, "-t", MACHINE, "-o", tmp_path / "cut"],
    ):
        ran = sparsecomm(*argv)
        assert (ran.rc, ran.stderr) == (0, "")
        assert ran.stdout.endswith(f"wrote {argv[-1]}\n")
        assert "network" in ran.stdout
        assert MATRIX in ran.stdout


def test_a_wrong_product_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparsecomm.apps.spmm.max_error", lambda *_: 0.5)
    ran = sparsecomm("spmm", MATRIX, "--check", "--repeat", 1, "--json")
    assert (ran.rc, ran.json["verified"], ran.json["max_error"]) == (1, False, 0.5)
    assert "WRONG" in sparsecomm("spmm", MATRIX, "--check", "--repeat", 1).stdout


def test_a_product_that_is_not_finite_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparsecomm.apps.spmm.max_error", lambda *_: np.inf)
    ran = sparsecomm("spmm", MATRIX, "--check", "--repeat", 1, "--json")
    assert (ran.rc, ran.json["verified"], ran.json["max_error"]) == (1, False, None)


@pytest.mark.parametrize("command", [["sparsecomm"], ["python", "-m", "sparsecomm"]])
def test_as_a_process(command: list[str]) -> None:
    program = [str(Path(sys.executable).parent / command[0]), *command[1:]]
    ran = run([*program, "plan", "grid2d:9", "-t", "uniform:2x2", "--json"], timeout=200)
    assert (ran.rc, without_progress(ran.stderr)) == (0, "")
    assert json.loads(ran.stdout)["schema"] == "sparsecomm.plan/1"


def test_exit_codes_of_a_process(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "sparsecomm"]
    assert run([*program, "--version"], timeout=200).rc == 0
    bad = run([*program, "plan", str(tmp_path / "no.mtx"), "-t", MACHINE], timeout=200)
    assert (bad.rc, bad.stdout) == (2, "")
    assert len(bad.stderr.splitlines()) == 1
    assert run([*program, "plan"], timeout=200).rc == 2
    assert run([*program], timeout=200).rc == 2


@pytest.mark.parametrize("command", ["plan", "plan --json", "spmm --transport local", "spmm --json --transport local"])
def test_a_reader_that_has_seen_enough(command: str) -> None:
    program = f"{sys.executable} -m sparsecomm {command} grid2d:9 -t uniform:1x2"
    ran = run(["bash", "-c", f"{program} | true; exit ${{PIPESTATUS[0]}}"], timeout=200)
    assert (ran.rc, without_progress(ran.stderr)) == (0, "")
