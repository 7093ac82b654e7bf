"""How much moves: by strategy and level, by size of message, from stage to stage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sparsecomm.apps.report.case import Case
from sparsecomm.apps.report.summary import stages_of
from sparsecomm.apps.report.view import COLOURS, View, level_colours, make_figure
from sparsecomm.apps.summary import Json

_FIRST = ("direct", "hierarchical", "cover")  # the story: naive, then each row once into a node, then the cover


def volume_views(case: Case, report: Json) -> Iterator[View]:
    """Yield the bars of the strategies, the histogram of messages, the flow through the stages."""
    if report["strategies"]:
        yield _strategies(case, report)
    if len(case.traffic):
        yield _sizes(case)
    if case.traffic.rows.any():
        yield _flow(case)


def _strategies(case: Case, report: Json) -> View:
    found = {name: entry for name, entry in report["strategies"].items() if entry}
    names = [name for name in _FIRST if name in found] + [name for name in found if name not in _FIRST]
    levels = list(reversed(case.topology.level_names))
    bottom = f"y{len(levels)}" if len(levels) > 1 else "y"
    figure = make_figure(
        "What one product moves at each level, by strategy",
        *_strategy_bars(case, {name: found[name] for name in names}, levels, report["strategy"]),
        height=220 * len(levels) + 120,
        xaxis={"anchor": bottom, "tickangle": -30, "showgrid": False},
        showlegend=False,
        **_panels(levels),
    )
    text = (
        "From naive (direct: every rank fetches each row it needs) to hierarchical (each row once into a node) to "
        "cover (rows or partial results, whichever is less). The strategy of this report is dark and has a ★. Each "
        "panel has its own scale; the outermost level, at the top, is the slowest."
    )
    return View("levels", "Strategies", text, figure)


def _strategy_bars(case: Case, found: Json, levels: list[str], chosen: str | None) -> Iterator[Any]:
    """Yield the bars of every level."""
    import plotly.graph_objects as go

    shown = [f"<b>{name} ★</b>" if name == chosen else name for name in found]
    opacity = [1.0 if name == chosen else 0.5 for name in found]
    colours = level_colours(case.topology.level_names)
    for number, level in enumerate(levels):
        rows = [entry["rows"][level] for entry in found.values()]
        yield go.Bar(
            x=shown,
            y=[value * case.row_bytes / 1e6 for value in rows],
            customdata=rows,
            name=level,
            marker={"color": colours[level], "opacity": opacity},
            xaxis="x",
            yaxis=f"y{number + 1}" if number else "y",
            hovertemplate="%{x}<br>" + level + ": %{y:,.3f} MB, %{customdata:,} rows<extra></extra>",
        )


def _panels(levels: list[str]) -> Json:
    """Return one axis for each level, one below the other."""
    height, gap = 1 / len(levels), 0.06
    return {
        f"yaxis{number + 1 if number else ''}": {
            "title": f"MB, {level}",
            "domain": [1 - (number + 1) * height + gap / 2, 1 - number * height - gap / 2],
            "rangemode": "tozero",
            "zeroline": False,
        }
        for number, level in enumerate(levels)
    }


def _sizes(case: Case) -> View:
    import plotly.graph_objects as go

    traffic = case.traffic
    sizes = traffic.num_bytes // np.maximum(traffic.count, 1)
    bins = np.ceil(np.log2(np.maximum(sizes, 1))).astype(np.int64)
    first, last = int(bins.min()), int(bins.max())
    ticks = [binary(exponent) for exponent in range(first, last + 1)]
    colours = level_colours(case.topology.level_names)
    traces = []
    for number, level in reversed(list(enumerate(case.topology.level_names))):
        pick = traffic.level == number
        counts = np.bincount(bins[pick] - first, traffic.count[pick], last - first + 1)
        tip = f"%{{y:,}} messages of up to %{{x}}<br>{level}<extra></extra>"
        traces.append(go.Bar(x=ticks, y=counts, name=level, marker_color=colours[level], hovertemplate=tip))
    figure = make_figure(
        "Messages of one product by size",
        *traces,
        barmode="stack",
        xaxis={"title": "bytes of a message, at most", "type": "category", "showgrid": False},
        yaxis={"title": "messages", "zeroline": False},
    )
    text = "Each bar counts messages of up to so many bytes (and more than half of it). Small ones cost their latency."
    return View("messages", "Message sizes", text, figure)


def binary(exponent: int) -> str:
    """Return 2 to the power of `exponent` as people write bytes."""
    for unit, least in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if exponent >= least:
            return f"{1 << (exponent - least)} {unit}"
    return f"{1 << exponent} B"


class _Flow:
    """Nodes and links of the way of the rows."""

    def __init__(self) -> None:
        self.labels: list[str] = []
        self.colours: list[str] = []
        self.links: list[tuple[int, int, int, str]] = []  # from, to, rows, what they do

    def node(self, label: str, colour: str) -> int:
        self.labels.append(label)
        self.colours.append(colour)
        return len(self.labels) - 1

    def link(self, begin: int, end: int, rows: int, what: str) -> None:
        if rows and begin >= 0:
            self.links.append((begin, end, rows, what))


def _flow(case: Case) -> View:
    flow, ends = _Flow(), dict[int, tuple[int, int]]()
    before: dict[int, int] = {}  # part -> its last stage so far
    by_level = level_colours(case.topology.level_names)
    for part, stage, level in stages_of(case):
        one = case.traffic.take((case.traffic.part == part) & (case.traffic.stage == stage))
        rows, given, final = (int((each * one.count).sum()) for each in (one.rows, one.given, one.final))
        if part not in ends:
            ends[part] = (
                flow.node(f"{case.parts[part].split()[0]}: given", COLOURS[7]),
                flow.node(f"{case.parts[part].split()[0]}: result", COLOURS[7]),
            )
        name = case.topology.level_names[level]
        here = flow.node(f"stage {stage}, {name}", by_level[name])
        flow.link(ends[part][0], here, given, "read where they lie")
        flow.link(before.get(part, -1), here, rows - given, "passed on")
        flow.link(here, ends[part][1], final, "used there")
        before[part] = here
    text = (
        "Rows on their way: from the ranks that have them, through the stages, to the ranks that use them. Rows that "
        "are passed on are drawn from the stage before. A row that fans out (or partial rows that are summed) makes a "
        "stage wider (or narrower) on one side than on the other."
    )
    return View("flow", "Stages", text, make_figure("Rows through the stages of the plan", _sankey(flow)))


def _sankey(flow: _Flow) -> Any:
    import plotly.graph_objects as go

    src, dst, value, what = zip(*flow.links, strict=True)
    return go.Sankey(
        node={"label": flow.labels, "color": flow.colours, "pad": 24, "thickness": 18, "line": {"width": 0}},
        link={
            "source": src,
            "target": dst,
            "value": value,
            "customdata": what,
            "color": "rgba(128,128,128,0.35)",
            "hovertemplate": "%{value:,} rows %{customdata}<extra></extra>",
        },
        textfont={"size": 13},
        valueformat=",",
    )
