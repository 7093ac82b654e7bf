"""The page of a report in a real browser: nothing complains, all of it is reachable, and it says what the JSON says."""

from __future__ import annotations

import json
import re
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

pytest.importorskip("plotly", reason="no plotly here; `make test` installs it")

TABS = ["levels", "ranks", "nodes", "bandwidth", "timeline", "messages", "flow", "topology", "matrix", "numbers"]
MAX_BYTES = 8_000_000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan and a run of it, and the page of each."""
    folder = tmp_path_factory.mktemp("page")
    planning = ("rmat:9", "-t", "summit:2", "-k", "8")
    assert sparsecomm("plan", *planning, "-o", folder / "plan").rc == 0
    run = ("--plan", folder / "plan", "--transport", "local", "--repeat", 3, "--profile", folder / "run")
    assert sparsecomm("spmm", *planning, *run).rc == 0
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
    assert page.stat().st_size <= MAX_BYTES
    browser.open(page)
    said = browser.run("JSON.parse(document.getElementById('report').textContent)")
    assert said == json.loads((made / f"{kind}.json").read_text())
    assert browser.run("tabs().map(tab => tab.getAttribute('aria-controls'))") == TABS
    browser.run("tabs()[0].focus()")
    for key in TABS:
        browser.wait_for("Promise.all(drawn.values()).then(() => true)")
        visible = "Array.from(document.querySelectorAll('.panel')).filter(one => !one.hidden).map(one => one.id)"
        assert browser.run(visible) == [key]
        if key != "numbers":
            assert browser.run(f"document.querySelectorAll('#{key} .main-svg').length") > 0
        browser.press("ArrowRight")
    assert browser.complaints == []


def test_hover_says_how_many_bytes(browser: Browser, made: Path) -> None:
    cells = rank_map(load_case(made / "run")).cells
    src, dst = divmod(int(cells.argmax()), len(cells))
    browser.open(made / "run.html", "#ranks")
    browser.wait_for("drawn.get('ranks').then(() => true)")
    x, y = browser.run(
        "(() => { const place = document.querySelector('#ranks .figure'); place.scrollIntoView();"
        "const layout = place._fullLayout, box = place.getBoundingClientRect();"
        f"return [box.x + layout.xaxis._offset + layout.xaxis.l2p({dst}),"
        f"box.y + layout.yaxis._offset + layout.yaxis.l2p({src})]; }})()"
    )
    browser.hover(x, y)
    browser.wait_for("document.querySelector('#ranks .hoverlayer .hovertext') !== null")
    said = browser.run("document.querySelector('#ranks .hoverlayer .hovertext').textContent")
    assert re.sub(r"\s+", " ", said).strip() == f"from rank {src}to rank {dst}{cells[src, dst]:,} bytes"


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
