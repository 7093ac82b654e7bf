"""What holds for every page of a report, in a real browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.chromium import Browser

Json = dict[str, Any]
TABS = ("levels", "ranks", "nodes", "bandwidth", "timeline", "messages", "flow", "topology", "matrix", "numbers")
MAX_BYTES = 8_000_000


def check_page(browser: Browser, page: Path) -> float:
    """Reach every view by the keyboard; nothing may complain, and the page must not be too large.

    Returns the seconds to its first paint.
    """
    assert page.stat().st_size <= MAX_BYTES
    paint_s = browser.open(page)
    assert browser.run("tabs().map(tab => tab.getAttribute('aria-controls'))") == list(TABS)
    browser.run("tabs()[0].focus()")
    for key in TABS:
        browser.wait_for("Promise.all(drawn.values()).then(() => true)")
        visible = "Array.from(document.querySelectorAll('.panel')).filter(one => !one.hidden).map(one => one.id)"
        assert browser.run(visible) == [key]
        if key != "numbers":
            assert browser.run(f"document.querySelectorAll('#{key} .main-svg').length") > 0
        browser.press("ArrowRight")
    assert browser.complaints == []
    return paint_s


def check_bars(browser: Browser, page: Path) -> None:
    """Hover over the bar of the chosen strategy in every panel: it says the rows of the JSON in the page."""
    report = report_of(browser, page, "levels")
    chosen, names = report["strategy"], browser.run("figure('levels').layout.xaxis._categories")
    rows = report["strategies"][chosen]["rows"]
    for number, level in enumerate(reversed(rows)):
        axis = f"yaxis{number + 1}" if number else "yaxis"
        value = f"figure('levels')._fullData[{number}].y[{names.index(f'<b>{chosen} ★</b>')}]"
        place = str(names.index(f"<b>{chosen} ★</b>"))
        hover(browser, "levels", "xaxis", place, axis, f"{value} / 2", f"{rows[level]:,} rows")


def check_map(browser: Browser, page: Path, key: str) -> tuple[int, int, int]:
    """Zoom in on the brightest cell of a map, hover over it, and return its row, its column and its bytes as said.

    All cells of the map of ranks together are the bytes of all levels of the JSON in the page.
    """
    report = report_of(browser, page, key)
    cells = browser.run("(one => Array.from(one.customdata, row => Array.from(row)))(figure(PLACE)._fullData[0])")
    total = sum(level["bytes"] for level in report["levels"].values())
    assert key != "ranks" or sum(map(sum, cells)) == total
    most = max(map(max, cells))
    src = next(number for number, row in enumerate(cells) if most in row)
    dst = cells[src].index(most)
    size = int(browser.run("figure(PLACE)._fullData[0].dx"))
    ranges = {"xaxis.range": _around(dst * size, size), "yaxis.range": _around(src * size, size)[::-1]}
    browser.run(f"Plotly.relayout(document.querySelector('#{key} .figure'), {json.dumps(ranges)}).then(() => true)")
    what = key[:-1] if size == 1 else f"{size} {key} from"
    ends = [f"{what} {place * size:,}{'' if size == 1 else ' on'}" for place in (src, dst)]
    wanted = f"from {ends[0]}to {ends[1]}{most:,} bytes"
    hover(browser, key, "xaxis", str(dst * size), "yaxis", str(src * size), wanted)
    return src, dst, int(most)


def _around(place: int, size: int) -> list[float]:
    """Return a range in which a cell is large enough to be pointed at, whatever is rounded to pixels."""
    return [place - 4.5 * size, place + 4.5 * size]


def report_of(browser: Browser, page: Path, key: str) -> Json:
    """Open a view of a page, define `figure` and `PLACE` there, and return the JSON in the page."""
    browser.open(page, f"#{key}")
    browser.wait_for(f"drawn.get('{key}').then(() => true)")
    browser.run(
        f"globalThis.PLACE = '{key}', globalThis.figure = key => "
        "((place) => ({_fullData: place._fullData, layout: place._fullLayout}))"
        "(document.querySelector(`#${key} .figure`)), true"
    )
    report = browser.run("JSON.parse(document.getElementById('report').textContent)")
    assert isinstance(report, dict)
    return report


def hover(browser: Browser, key: str, x_axis: str, x: str, y_axis: str, y: str, wanted: str) -> None:
    """Point at a place in the data of a figure until what is said there ends with what is wanted.

    Until it is drawn, what was said of the place before stands there.
    """
    at = (
        f"(() => {{ const place = document.querySelector('#{key} .figure'); place.scrollIntoView();"
        "const layout = place._fullLayout, box = place.getBoundingClientRect();"
        f"return [box.x + layout.{x_axis}._offset + layout.{x_axis}.l2p({x}),"
        f"box.y + layout.{y_axis}._offset + layout.{y_axis}.l2p({y})]; }})()"
    )
    browser.hover(*browser.run(at))
    said = f"(document.querySelector('#{key} .hoverlayer .hovertext')?.textContent ?? '').replace(/\\s+/g, ' ').trim()"
    browser.wait_for(f"{said}.endsWith({json.dumps(wanted)})")
