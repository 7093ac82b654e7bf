"""Who does what when: every rank of a recorded run, or of a plan as the cost model has it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from sparsecomm.apps.report.case import Case
from sparsecomm.apps.report.predicted import Step, predicted_steps
from sparsecomm.apps.report.spans import span_text
from sparsecomm.apps.report.transfers import Transfers
from sparsecomm.apps.report.view import COLOURS, View, level_colours, make_figure
from sparsecomm.profile import Kind
from sparsecomm.profile_store import RankProfile
from sparsecomm.typing import Floats, IntGlobal

_RANKS: Final = 64  # on a time line
_PRODUCTS: Final = 2  # the last so many are drawn
_ARROWS: Final = 400
_GREY: Final = "rgba(128,128,128,0.7)"
_KINDS: Final = {
    Kind.PRODUCT: ("product", COLOURS[2]),
    Kind.PACK: ("pack", COLOURS[1]),
    Kind.POST: ("send", COLOURS[5]),
    Kind.WAIT: ("wait", COLOURS[3]),
    Kind.UNPACK: ("unpack", COLOURS[4]),
    Kind.DRAIN: ("drain", COLOURS[7]),
}


def timeline_view(case: Case, transfers: Transfers) -> Iterator[View]:
    """Yield the time line, measured or predicted."""
    if len(case.traffic):
        yield _measured_line(case, transfers) if case.kind == "run" else _predicted_line(case)


def _measured_line(case: Case, transfers: Transfers) -> View:
    ranks = _shown(case)
    begin, end = _window(ranks)
    traces = [_spans(ranks, case, kind, begin, end) for kind in _KINDS]
    arrows = _arrows(transfers, {rank.rank: number for number, rank in enumerate(ranks)}, begin, end)
    title = f"The last {_PRODUCTS} products, by rank"
    figure = _figure(title, "milliseconds", [rank.rank for rank in ranks], [*traces, arrows])
    text = (
        "What every rank did, on the clock of rank 0. In gaps and while waiting nothing was computed; thin lines are "
        "messages, from the rank that sent to the one that received. Click a name in the legend to hide it."
    )
    if len(ranks) < len(case.ranks):
        text += f" Shown are the {len(ranks)} ranks that waited longest."
    return View("timeline", "Time line", text, figure)


def _figure(title: str, unit: str, ranks: list[int], traces: list[Any]) -> Any:
    """Return a figure with a line for each rank."""
    every = max(1, len(ranks) // 32)
    return make_figure(
        title,
        *traces,
        height=max(420, 18 * len(ranks) + 180),
        barmode="overlay",
        xaxis={"title": unit, "zeroline": False, "rangemode": "nonnegative"},
        yaxis={
            "tickvals": list(range(0, len(ranks), every)),
            "ticktext": [f"rank {rank}" for rank in ranks[::every]],
            "range": [len(ranks) - 0.4, -0.6],
            "zeroline": False,
            "showgrid": False,
        },
    )


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
    known = np.isin(transfers.src, list(place)) & np.isin(transfers.dst, list(place))
    pick = np.flatnonzero(known & (transfers.begin >= begin) & (transfers.end <= end))
    pick = pick[:: max(1, -(-pick.size // _ARROWS))]
    times: list[Floats] = [(moments[pick] - begin) / 1e6 for moments in (transfers.begin, transfers.end)]
    lines = [np.array([place[one] for one in ends[pick].tolist()]) for ends in (transfers.src, transfers.dst)]
    return _lines("messages", times[0], times[1], lines[0], lines[1])


def _lines(name: str, begin: Floats, end: Floats, src: IntGlobal, dst: IntGlobal) -> Any:
    """Return thin lines from one rank to another."""
    import plotly.graph_objects as go

    gap = np.full(begin.size, None)
    x, y = (np.stack([*ends, gap], axis=1).ravel().tolist() for ends in ((begin, end), (src, dst)))
    return go.Scatter(x=x, y=y, mode="lines", name=name, line={"color": _GREY, "width": 1}, hoverinfo="skip")


def _predicted_line(case: Case) -> View:
    """Draw what the cost model gives every rank."""
    steps = predicted_steps(case)
    ranks = _last(steps, case.topology.num_ranks)
    place = np.full(case.topology.num_ranks, -1)
    place[ranks] = np.arange(ranks.size)
    waits = _bars_of("wait", COLOURS[7], [_bar(case, one, ranks, waits=True) for one in steps])
    colours, traces = level_colours(case.topology.level_names), [waits]
    for level, name in reversed(list(enumerate(case.topology.level_names))):
        here = [one for one in steps if one.level == level]
        if here:
            traces.append(_bars_of(name, colours[name], [_bar(case, one, ranks, waits=False) for one in here]))
    figure = _figure(
        f"Predicted time of the stages on {case.topology.name}, by rank",
        "microseconds",
        ranks.tolist(),
        [*traces, _predicted_arrows(case, steps, place)],
    )
    text = (
        "What the cost model gives each rank for each stage: starting its messages, and the port that limits it. Each "
        "goes on when all that comes to it in a stage has come; until then it waits. Nothing is hidden behind the "
        "product. Thin lines are messages. It compares plans; it is no benchmark. Record a run to see measured times."
    )
    if ranks.size < case.topology.num_ranks:
        text += f" Shown are the {ranks.size} ranks that take longest."
    return View("timeline", "Time line", text, figure)


def _last(steps: list[Step], num_ranks: int) -> IntGlobal:
    """Return the ranks whose own work takes longest, in order of their numbers."""
    if num_ranks <= _RANKS:
        return np.arange(num_ranks)
    busy = np.sum([one.busy_s for one in steps], axis=0)
    return np.sort(np.argsort(-busy, kind="stable")[:_RANKS])


Bar = tuple[Floats, Floats, IntGlobal, list[str]]
"""Microseconds at which bars begin and that they take, the lines they are on, and what they are."""


def _bar(case: Case, step: Step, ranks: IntGlobal, *, waits: bool) -> Bar:
    """Return the bars of one stage: of ranks at work, or of those that wait for others."""
    worked = step.begin_s + step.busy_s
    begin, end = (worked, step.end_s) if waits else (step.begin_s, worked)
    line = np.flatnonzero((end - begin)[ranks] > 1e-12)
    pick = ranks[line]
    where = f"{case.parts[step.part]}, stage {step.stage} ({case.topology.level_names[step.level]})"
    tips = [f"rank {rank}{' waits' if waits else ''}<br>{where}" for rank in pick.tolist()]
    return begin[pick] * 1e6, (end - begin)[pick] * 1e6, line, tips


def _bars_of(name: str, colour: str, bars: list[Bar]) -> Any:
    import plotly.graph_objects as go

    base, length, line = (np.concatenate([one[n] for one in bars]).round(4).tolist() for n in range(3))
    return go.Bar(
        base=base,
        x=length,
        y=line,
        orientation="h",
        name=name,
        marker={"color": colour, "line": {"width": 0}, "opacity": 0.35 if name == "wait" else 1.0},
        width=0.8,
        customdata=[tip for one in bars for tip in one[3]],
        hovertemplate="%{customdata}<br>%{x:.3f} us from %{base:.3f} us<extra></extra>",
    )


def _predicted_arrows(case: Case, steps: list[Step], place: IntGlobal) -> Any:
    """Return the largest messages between ranks that are drawn: what each stage waits for."""
    found = []
    for step in steps:
        one = case.traffic.take((case.traffic.part == step.part) & (case.traffic.stage == step.stage))
        shown = np.flatnonzero((place[one.src] >= 0) & (place[one.dst] >= 0))
        most = shown[np.argsort(-one.num_bytes[shown], kind="stable")[: _ARROWS // len(steps)]]
        src, dst = one.src[most], one.dst[most]
        sent = (step.begin_s + step.busy_s)[src] * 1e6
        found.append((step.begin_s[src] * 1e6, np.maximum(sent, step.begin_s[dst] * 1e6), place[src], place[dst]))
    return _lines("messages", *(np.concatenate([one[n] for one in found]) for n in range(4)))
