"""The page of a report in a real browser: nothing complains, all of it is reachable, and it says what the JSON says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sparsecomm.apps.report.case import Case, load_case
from sparsecomm.apps.report.maps import MAX_SHOWN, node_map, rank_map
from sparsecomm.apps.report.tree import layers_of
from sparsecomm.topology import Topology
from sparsecomm.traffic import Traffic
from tests.chromium import Browser, chromium
from tests.cli import sparsecomm
from tests.page_checks import TABS, check_bars, check_map, check_page, report_of

pytest.importorskip("plotly", reason="no plotly here; `make test` installs it")

PLANNING = ("rmat:9", "-t", "summit:2", "-k", "8")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan and a run of it, and the page of each."""
    folder = tmp_path_factory.mktemp("page")
    assert sparsecomm("plan", *PLANNING, "-o", folder / "plan").rc == 0
    run = ("--plan", folder / "plan", "--transport", "local", "--repeat", 3, "--profile", folder / "run")
    assert sparsecomm("spmm", *PLANNING, *run).rc == 0
    for kind in ("plan", "run"):
        ran = sparsecomm("report", folder / kind, "--json", "--html", folder / f"{kind}.html")
        assert ran.rc == 0, ran
        (folder / f"{kind}.json").write_text(ran.stdout)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium()
    with Browser() as one:
        yield one


@pytest.mark.parametrize("kind", ["plan", "run"])
def test_every_view_is_reached_by_keyboard_and_nothing_complains(browser: Browser, made: Path, kind: str) -> None:
    page = made / f"{kind}.html"
    check_page(browser, page)
    assert report_of(browser, page, "levels") == json.loads((made / f"{kind}.json").read_text())


def test_hover_says_how_many_bytes(browser: Browser, made: Path) -> None:
    case = load_case(made / "run")
    for key, found in (("ranks", rank_map(case)), ("nodes", node_map(case))):
        src, dst, num_bytes = check_map(browser, made / "run.html", key)
        assert found.cells[src, dst] == found.cells.max() == num_bytes
    check_bars(browser, made / "run.html")


def test_a_plan_need_not_be_written_for_its_page(browser: Browser, made: Path, tmp_path: Path) -> None:
    ran = sparsecomm("plan", *PLANNING, "--html", tmp_path / "page.html", "--json")
    assert ran.rc == 0, ran
    said = report_of(browser, tmp_path / "page.html", "levels")
    wanted = json.loads((made / "plan.json").read_text())
    assert said | {"name": "plan", "partition": wanted["partition"]} == wanted
    assert said["strategies"] == ran.json["strategies"]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["page.html"]


def test_theme_and_print(browser: Browser, made: Path) -> None:
    browser.open(made / "plan.html")
    before = browser.run("getComputedStyle(document.body).backgroundColor")
    browser.run("document.getElementById('theme').click()")
    assert browser.run("getComputedStyle(document.body).backgroundColor") != before
    browser.run("beforePrint()")
    browser.wait_for("Promise.all(drawn.values()).then(() => true)")
    assert browser.run("document.querySelectorAll('.panel:not([hidden])').length") == len(TABS)
    assert browser.complaints == []


def test_maps_of_many_ranks_are_put_together() -> None:
    topology, rng = Topology.parse("uniform:520x2"), np.random.default_rng(0)
    src, dst = rng.integers(0, topology.num_ranks, (2, 5000))
    rows, zero = rng.integers(1, 9, src.size), np.zeros(src.size, dtype=np.int64)
    traffic = Traffic(zero, zero, zero + 1, src, dst, rows, rows, rows, zero + 1, rows * 16)
    case = Case(Path("many"), "plan", topology, {}, ["gather forwards"], traffic, 1)
    ranks, nodes = rank_map(case), node_map(case)
    assert [(layer.name, layer.size, len(layer.parent)) for layer in layers_of(case)] == [
        ("network", 1, 1),
        ("node", 6, 87),
    ]
    assert topology.num_ranks > MAX_SHOWN >= len(ranks.cells)
    assert (ranks.what, nodes.what) == ("5 ranks from", "3 nodes from")
    for found, member in ((ranks, np.arange(1040) // 5), (nodes, np.arange(1040) // 2 // 3)):
        wanted = np.zeros_like(found.cells)
        np.add.at(wanted, (member[src], member[dst]), rows * 16)
        assert np.array_equal(found.cells, wanted)


def test_links_carry_what_crosses_them(made: Path) -> None:
    case = load_case(made / "plan")
    network, node, socket, rank = layers_of(case)
    assert [len(layer.parent) for layer in (network, node, socket, rank)] == [1, 2, 4, 12]
    crossing = case.traffic.take(case.traffic.level == 2)
    out = [crossing.num_bytes[case.topology.rank_to_node[crossing.src] == one].sum() for one in (0, 1)]
    assert node.loads.tolist() == [out, out[::-1]]
    assert rank.loads[0].sum() == rank.loads[1].sum() == case.traffic.num_bytes.sum()


def test_without_a_place_for_it_nothing_is_read(tmp_path: Path) -> None:
    ran = sparsecomm("report", tmp_path, "--html", tmp_path / "no" / "page.html")
    assert (ran.rc, ran.stdout) == (2, "")
    assert "give the name of a file in a folder that exists" in ran.stderr
