"""What-if: changed machines, growing matrices, every case against a plan of its own."""

from __future__ import annotations

from fractions import Fraction

import pytest

from sparsecomm.apps.growth import grown
from sparsecomm.apps.settings import Setting, changed
from sparsecomm.apps.what_if import expanded
from sparsecomm.errors import InputError
from sparsecomm.io.matrix import read_matrix
from sparsecomm.topology import Topology
from tests.cli import Ran, sparsecomm
from tests.unit.test_cli import best_of

MATRIX = "rmat:9:6"


def what_if(*words: object) -> Ran:
    return sparsecomm("plan", MATRIX, "--what-if", *words)


def test_every_case_is_a_plan_of_its_own() -> None:
    report = what_if("-t", "nodes:{3,1}", "-t", "summit:2", "--set", "width=16,64", "--json").json
    assert report["schema"] == "sparsecomm.what_if/1"
    assert [(case["topology"]["name"], case["width"]) for case in report["cases"]] == [
        (name, width) for name in ("nodes:3", "nodes:1", "summit:2") for width in (16, 64)
    ]
    for case in report["cases"]:
        plan = sparsecomm("plan", MATRIX, "-t", case["topology"]["name"], "-k", case["width"], "--json").json
        counted = {name: entry for name, entry in plan["strategies"].items() if entry}
        for entry in counted.values():
            del entry["gap_percent"]  # what-if computes no bounds
        for key in ("matrix", "topology", "width", "strategies", "not_counted", "chosen"):
            assert case[key] == plan[key], key
        best = plan["strategies"][plan["chosen"]]
        assert (case["predicted_s"], case["limit"]) == (best["predicted_s"], best["limit"])
        assert case["chosen"] == best_of(counted)
    assert sum(report["wins"].values()) == len(report["cases"])


def test_twice_the_bandwidth_of_the_network() -> None:
    """Twice the caps of ranks and nodes halve the bandwidth term of every strategy exactly; latency stays."""
    report = what_if("-t", "summit:3", "--set", "network.bandwidth=1x,2x", "--json").json
    before, after = (case["strategies"] for case in report["cases"])
    moved = 0
    # These count lanes and links anew for other bandwidths.
    for name in {name for name, entry in before.items() if entry} - {"striped", "cover-striped", "tree"}:
        old, new = (side[name]["predicted_parts_s"] for side in (before, after))
        ports = ("network rank port", "network node port")
        assert sum(new[port] for port in ports) == sum(old[port] for port in ports) / 2
        moved += sum(old[port] for port in ports) > 0
        for part in old.keys() - set(ports):
            assert new[part] == old[part], (name, part)
    assert moved > 5


def test_scaling_curves() -> None:
    strong = what_if("-t", "uniform:{1,2,4}x2", "--json").json
    weak = what_if("-t", "uniform:{1,2,4}x2", "--weak", "--json").json
    assert [case["matrix"]["rows"] for case in strong["cases"]] == [512] * 3
    assert [case["matrix"]["name"] for case in weak["cases"]] == ["rmat:9:6", "rmat:10:6", "rmat:11:6"]
    for report, factor in ((strong, 1), (weak, 4)):
        first, last = report["cases"][0], report["cases"][-1]
        assert (first["speedup"], first["efficiency"]) == (1.0, 1.0)
        assert last["speedup"] == pytest.approx(factor * first["predicted_s"] / last["predicted_s"])
        assert last["efficiency"] == pytest.approx(last["speedup"] / 4)


def test_only_the_strategies_asked_for() -> None:
    report = what_if("-t", "uniform:2x2", "-s", "direct,cover", "--json").json
    assert list(report["cases"][0]["strategies"]) == ["direct", "cover"]
    assert report["cases"][0]["chosen"] in ("direct", "cover")


def test_table_says_who_wins_and_what_limits() -> None:
    ran = what_if("-t", "uniform:2x2", "-t", "summit:2", "--set", "network.ports=1,4", "--set", "depth=1,2")
    assert (ran.rc, ran.stderr) == (0, "")
    report = what_if(
        "-t", "uniform:2x2", "-t", "summit:2", "--set", "network.ports=1,4", "--set", "depth=1,2", "--json"
    ).json
    lines = [line for line in ran.stdout.splitlines() if line.split()[:1] in (["uniform:2x2"], ["summit:2"])]
    assert len(lines) == len(report["cases"]) == 8
    for line, case in zip(lines, report["cases"], strict=True):
        assert f" {case['chosen']} " in line
        assert case["limit"] in line
        assert line.split()[2] == case["settings"]["network.ports"]
        assert (" in 2 " in line) == (case["depth"] == 2)
    assert f"wins: {next(iter(report['wins']))} " in ran.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "network.bandwidth"], "KEY=VALUE"),
        (["--set", "network.bandwidth=fast"], "'fast' is not a number"),
        (["--set", "network.bandwidth=-1"], "'-1' is not a number"),
        (["--set", "network.bandwidth=0"], "at least 1"),
        (["--set", "network.ports=1.5"], "whole number"),
        (["--set", "width=0"], "whole number"),
        (["--set", "rack.ports=2"], "node.latency, node.bandwidth"),
        (["--set", "width=2", "--set", "width=3"], "set twice"),
        (["-s", "sideways"], "sideways"),
        (["-t", "uniform:3x2", "--weak"], "cannot grow by 3"),
        (["-o", "plan"], "leave --show, --html and -o out"),
        (["-t", "uniform:0x2"], "uniform:0x2"),
    ],
)
def test_refusals(words: list[str], message: str) -> None:
    ran = what_if("-t", "uniform:1x2", *words)
    assert (ran.rc, ran.stdout) == (2, "")
    assert message in ran.stderr


@pytest.mark.parametrize("words", [["-t", "summit:2"], ["--set", "width=3"], ["--weak"]])
def test_only_with_what_if(words: list[str]) -> None:
    ran = sparsecomm("plan", MATRIX, "-t", "uniform:1x2", *words)
    assert ran.rc == 2
    assert "add --what-if" in ran.stderr


def test_settings_change_one_figure() -> None:
    summit = Topology.parse("summit:2")
    faster = changed(summit, "network.bandwidth", "2x")
    assert (faster.levels[2].bandwidth_Bps, faster.levels[2].direct_Bps) == (25e9, 11e9)
    assert changed(summit, "network.bandwidth", "1e9").levels[2].direct_Bps == 5.5e9
    assert faster.levels[:2] == summit.levels[:2]
    assert changed(summit, "network.ports", "2x").levels[2].ports == 4
    assert changed(summit, "socket.latency", "0.5x").levels[0].latency_s == 1e-6
    assert changed(summit, "device.memory", "1e12").device.memory_Bps == 1e12
    assert Setting.parse("width=1,2").numbers() == [1, 2]


def test_braces() -> None:
    assert expanded("summit:{1, 2,4608}") == ["summit:1", "summit:2", "summit:4608"]
    assert expanded("uniform:{1,2}x4") == ["uniform:1x4", "uniform:2x4"]
    assert expanded("nodes:3,1") == ["nodes:3,1"]


@pytest.mark.parametrize(
    ("spec", "factor", "bigger"),
    [
        ("rmat:5:4:1", Fraction(8), "rmat:8:4:1"),
        ("rmat:5", Fraction(1, 2), "rmat:4"),
        ("er:100:3", Fraction(3, 2), "er:150:3"),
        ("grid2d:6", Fraction(3), "grid2d:18:6"),
        ("grid2d:6:5", Fraction(2), "grid2d:12:5"),
        ("grid3d:4", Fraction(27), "grid3d:12"),
        ("grid3d27:4", Fraction(1), "grid3d27:4"),
    ],
)
def test_growth(spec: str, factor: Fraction, bigger: str) -> None:
    assert grown(spec, factor) == bigger
    assert read_matrix(bigger).shape[0] == read_matrix(spec).shape[0] * factor


@pytest.mark.parametrize(
    ("spec", "factor"),
    [("rmat:5", Fraction(3)), ("grid3d:4", Fraction(2)), ("er:9:2", Fraction(1, 2)), ("radixnet:1024:0", Fraction(2)),
     ("a.mtx", Fraction(2)), ("rmat", Fraction(2))],
)  # fmt: skip
def test_what_does_not_grow(spec: str, factor: Fraction) -> None:
    with pytest.raises(InputError):
        grown(spec, factor)
