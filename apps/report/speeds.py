"""How fast: bandwidth by size of message, and who did what when."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from sparsecomm.apps.report.case import Case
from sparsecomm.apps.report.spans import span_text
from sparsecomm.apps.report.summary import stages_of
from sparsecomm.apps.report.transfers import Transfers
from sparsecomm.apps.report.view import COLOURS, View, level_colours, make_figure
from sparsecomm.cost import CostModel
from sparsecomm.profile import Kind
from sparsecomm.profile_store import RankProfile
from sparsecomm.topology import Level
from sparsecomm.typing import IntGlobal

_POINTS: Final = 3000  # transfers drawn at a level
_RANKS: Final = 64  # on a time line
_PRODUCTS: Final = 2  # the last so many are drawn
_ARROWS: Final = 400
_KINDS: Final = {
    Kind.PRODUCT: ("product", COLOURS[2]),
    Kind.PACK: ("pack", COLOURS[1]),
    Kind.POST: ("send", COLOURS[5]),
    Kind.WAIT: ("wait", COLOURS[3]),
    Kind.UNPACK: ("unpack", COLOURS[4]),
    Kind.DRAIN: ("drain", COLOURS[7]),
}


def speed_views(case: Case, transfers: Transfers) -> Iterator[View]:
    """Yield the bandwidth of messages and the time line, measured or predicted."""
    if len(case.traffic):
        yield _bandwidth(case, transfers)
        yield _measured_line(case, transfers) if case.kind == "run" else _predicted_line(case)


def _bandwidth(case: Case, transfers: Transfers) -> View:
    sizes = case.traffic.num_bytes // np.maximum(case.traffic.count, 1)
    grid = np.logspace(np.log10(max(int(sizes.min()), 1)) - 1, np.log10(max(int(sizes.max()), 2)) + 1, 60)
    colours, traces = level_colours(case.topology.level_names), []
    for number, level in reversed(list(enumerate(case.topology.levels))):
        traces += _curve(level, grid, colours[level.name])
        pick = np.flatnonzero(case.traffic.level == number)
        if len(transfers):
            seen = np.flatnonzero(transfers.level == number)
            seen = seen[:: max(1, -(-seen.size // _POINTS))]
            traces += _points(
                f"{level.name} measured", transfers.num_bytes[seen], transfers.ns[seen] * 1e-9, colours, level
            )
        elif pick.size:
            planned = np.unique(sizes[pick])
            planned = planned[:: max(1, -(-planned.size // 200))]
            traces += _points(f"{level.name} planned", planned, _model_s(level, planned), colours, level)
    figure = make_figure(
        "Bandwidth of single messages by size",
        *traces,
        height=560,
        xaxis={"title": "bytes of a message", "type": "log", "dtick": 1, "exponentformat": "SI"},
        yaxis={"title": "bytes per second", "type": "log", "dtick": 1, "exponentformat": "SI"},
    )
    text = (
        "Lines are the model of the topology: on the left latency limits, on the right, where they are flat, the link. "
        + (
            "Points are messages of this run, from the moment they were sent to the moment their receiver saw them; a "
            "receiver that was multiplying saw them late."
            if len(transfers)
            else "Points are the messages of the plan: those left of the bend would gain from being fewer and longer."
        )
    )
    return View("bandwidth", "Bandwidth", text, figure)


def _model_s(level: Level, sizes: Any) -> Any:
    return level.latency_s + sizes / level.bandwidth_Bps


def _curve(level: Level, grid: Any, colour: str) -> list[Any]:
    import plotly.graph_objects as go

    tip = f"{level.name} by the model<br>%{{x:.3s}}B: %{{y:.3s}}B/s<extra></extra>"
    line = {"color": colour, "width": 2}
    speed = grid / _model_s(level, grid)
    return [go.Scatter(x=grid, y=speed, mode="lines", name=f"{level.name} model", line=line, hovertemplate=tip)]


def _points(name: str, sizes: IntGlobal, seconds: Any, colours: dict[str, str], level: Level) -> list[Any]:
    import plotly.graph_objects as go

    marker = {"color": colours[level.name], "size": 6, "opacity": 0.6, "symbol": "circle-open"}
    tip = f"{name}<br>%{{x:,}} bytes: %{{y:.3s}}B/s<extra></extra>"
    speed = (sizes / seconds).astype(np.float32)
    return [go.Scatter(x=sizes, y=speed, mode="markers", name=name, marker=marker, hovertemplate=tip)]


def _measured_line(case: Case, transfers: Transfers) -> View:
    ranks = _shown(case)
    begin, end = _window(ranks)
    traces = [_spans(ranks, case, kind, begin, end) for kind in _KINDS]
    labels = [f"rank {rank.rank}" for rank in ranks]
    every = max(1, len(labels) // 32)
    figure = make_figure(
        f"The last {_PRODUCTS} products, by rank",
        *traces,
        _arrows(transfers, {rank.rank: number for number, rank in enumerate(ranks)}, begin, end),
        height=max(420, 18 * len(ranks) + 180),
        barmode="overlay",
        xaxis={"title": "milliseconds", "zeroline": False},
        yaxis={
            "tickvals": list(range(0, len(labels), every)),
            "ticktext": labels[::every],
            "autorange": "reversed",
            "zeroline": False,
            "showgrid": False,
        },
    )
    text = (
        "What every rank did, on the clock of rank 0. In gaps and while waiting nothing was computed; thin lines are "
        "messages, from the rank that sent to the one that received. Click a name in the legend to hide it."
    )
    if len(ranks) < len(case.ranks):
        text += f" Shown are the {len(ranks)} ranks that waited longest."
    return View("timeline", "Time line", text, figure)


def _spans(ranks: list[RankProfile], case: Case, kind: Kind, begin: int, end: int) -> Any:
    """Return the bars of one kind of span; those of products are thin, for others happen meanwhile."""
    import plotly.graph_objects as go

    (name, colour), product = _KINDS[kind], kind == Kind.PRODUCT
    base, length, row, tips = _bars(ranks, case, kind, begin, end)
    return go.Bar(
        base=base,
        x=length,
        y=row,
        orientation="h",
        name=name,
        marker={"color": colour, "line": {"width": 0}},
        width=0.45 if product else 0.8,
        opacity=0.55 if product else 1.0,
        customdata=tips,
        hovertemplate="%{customdata}<br>%{x:.3f} ms from %{base:.3f} ms<extra></extra>",
    )


def _shown(case: Case) -> list[RankProfile]:
    """Return the ranks that waited longest, in order of their numbers."""
    if len(case.ranks) <= _RANKS:
        return case.ranks
    waited = [sum(track["blocked_ns"] for track in rank.meta["tracks"]) for rank in case.ranks]
    longest = sorted(np.argsort(waited)[::-1][:_RANKS].tolist())
    return [case.ranks[number] for number in longest]


def _window(ranks: list[RankProfile]) -> tuple[int, int]:
    """Return the nanoseconds between which the last products lie."""
    runs = np.concatenate([rank.spans[rank.spans[:, 0] == Kind.RUN] for rank in ranks])
    if not len(runs):
        every = np.concatenate([rank.spans for rank in ranks])
        return (int(every[:, 4].min()), int(every[:, 5].max())) if len(every) else (0, 1)
    last = runs[runs[:, 3] > runs[:, 3].max() - _PRODUCTS]
    return int(last[:, 4].min()), int(last[:, 5].max())


def _bars(
    ranks: list[RankProfile], case: Case, kind: Kind, begin: int, end: int
) -> tuple[list[float], list[float], list[int], list[str]]:
    base: list[float] = []
    length: list[float] = []
    row: list[int] = []
    tips: list[str] = []
    for number, rank in enumerate(ranks):
        spans = rank.spans
        pick = spans[(spans[:, 0] == kind) & (spans[:, 5] >= begin) & (spans[:, 4] <= end)]
        base += ((pick[:, 4] - begin) * 1e-6).round(4).tolist()
        length += ((pick[:, 5] - pick[:, 4]) * 1e-6).round(4).tolist()
        row += [number] * len(pick)
        tips += [_tip(rank, case, kind, *one) for one in pick[:, 1:3].tolist()]
    return base, length, row, tips


def _tip(rank: RankProfile, case: Case, kind: Kind, track: int, index: int) -> str:
    """Say what a span is about."""
    name, about = span_text(case, rank, kind, track, index)
    where = f"<br>{about['part']}, stage {about['stage']} ({about['level']})<br>{about['rows']:,} rows" if about else ""
    return f"{name}, rank {rank.rank}{where}"


def _arrows(transfers: Transfers, place: dict[int, int], begin: int, end: int) -> Any:
    import plotly.graph_objects as go

    known = np.isin(transfers.src, list(place)) & np.isin(transfers.dst, list(place))
    pick = np.flatnonzero(known & (transfers.begin >= begin) & (transfers.end <= end))
    pick = pick[:: max(1, -(-pick.size // _ARROWS))]
    x: list[float | None] = []
    y: list[float | None] = []
    for one in pick.tolist():
        x += [(int(transfers.begin[one]) - begin) * 1e-6, (int(transfers.end[one]) - begin) * 1e-6, None]
        y += [place[int(transfers.src[one])], place[int(transfers.dst[one])], None]
    line = {"color": "rgba(128,128,128,0.7)", "width": 1}
    return go.Scatter(x=x, y=y, mode="lines", name="messages", line=line, hoverinfo="skip")


def _predicted_line(case: Case) -> View:
    """Draw stages one after the other, as the cost model counts them."""
    import plotly.graph_objects as go

    colours, now = level_colours(case.topology.level_names), 0.0
    model, traces, seen = CostModel(case.topology), [], set()
    for part, stage, level in stages_of(case):
        one = case.traffic.take((case.traffic.part == part) & (case.traffic.stage == stage))
        seconds = model.estimate(one.volume(case.topology), case.width, case.row_bytes // case.width).levels_s[level]
        name = case.topology.level_names[level]
        traces.append(
            go.Bar(
                base=[now * 1e6],
                x=[seconds * 1e6],
                y=[f"{case.parts[part]}, stage {stage}"],
                orientation="h",
                name=name,
                legendgroup=name,
                showlegend=name not in seen,
                marker_color=colours[name],
                hovertemplate=f"stage {stage} of {case.parts[part]}, {name}<br>%{{x:.3f}} us<extra></extra>",
            )
        )
        seen.add(name)
        now += seconds
    figure = make_figure(
        f"Predicted time of the stages on {case.topology.name}",
        *traces,
        height=max(360, 44 * len(traces) + 160),
        barmode="overlay",
        xaxis={"title": "microseconds", "zeroline": False},
        yaxis={"autorange": "reversed", "automargin": True, "showgrid": False},
    )
    text = (
        "What the cost model gives the busiest rank and the busiest port of each stage, one stage after the other and "
        "nothing hidden behind the product. It compares plans; it is no benchmark. Record a run to see measured times."
    )
    return View("timeline", "Time line", text, figure)
