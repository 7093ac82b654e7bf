"""How fast: bandwidth by size of message."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from sparsecomm.apps.report.case import Case
from sparsecomm.apps.report.transfers import Transfers
from sparsecomm.apps.report.view import View, level_colours, make_figure
from sparsecomm.cost import Link
from sparsecomm.table import distinct
from sparsecomm.typing import IntGlobal

_POINTS: Final = 3000  # transfers drawn at a level


def bandwidth_view(case: Case, transfers: Transfers) -> Iterator[View]:
    """Yield the bandwidth of single messages, as the model has it and, in a run, as it was."""
    if not len(case.traffic):
        return
    sizes = case.traffic.num_bytes // np.maximum(case.traffic.count, 1)
    links = [case.model.link(number) for number in range(case.topology.num_levels)]
    bend = max(link.latency_s * link.rank_Bps for link in links)  # of this size, half of the time is latency
    ends = max(int(sizes.min()), 1), max(int(sizes.max()), 10 * bend, 2)
    grid = np.logspace(np.log10(ends[0]) - 0.5, np.log10(ends[1]) + 0.5, 80)
    colours, traces = level_colours(case.topology.level_names), []
    for number, name in reversed(list(enumerate(case.topology.level_names))):
        traces += _curve(name, links[number], grid, colours[name])
        pick = np.flatnonzero(case.traffic.level == number)
        if len(transfers):
            seen = np.flatnonzero(transfers.level == number)
            seen = seen[:: max(1, -(-seen.size // _POINTS))]
            traces += _points(f"{name} measured", transfers.num_bytes[seen], transfers.ns[seen] * 1e-9, colours[name])
        elif pick.size:
            planned = distinct([sizes[pick]])[0]
            planned = planned[:: max(1, -(-planned.size // 200))]
            traces += _points(f"{name} planned", planned, _model_s(links[number], planned), colours[name])
    figure = make_figure(
        "Bandwidth of single messages by size",
        *traces,
        height=560,
        xaxis={"title": "bytes of a message", "type": "log", "dtick": 1, "exponentformat": "SI"},
        yaxis={"title": "bytes per second", "type": "log", "dtick": 1, "exponentformat": "SI"},
    )
    text = (
        f"Lines are the model{' as calibrated' if case.calibration else ''}: on the left latency limits, on the right, "
        "where they are flat, the link. "
        + (
            "Points are messages of this run, from the moment they were sent to the moment their receiver saw them; a "
            "receiver that was multiplying saw them late."
            if len(transfers)
            else "Points are the messages of the plan: those left of the bend would gain from being fewer and longer."
        )
    )
    yield View("bandwidth", "Bandwidth", text, figure)


def _model_s(link: Link, sizes: Any) -> Any:
    return link.latency_s + sizes / link.rank_Bps


def _curve(name: str, link: Link, grid: Any, colour: str) -> list[Any]:
    import plotly.graph_objects as go

    tip = f"{name} by the model<br>%{{x:.3s}}B: %{{y:.3s}}B/s<extra></extra>"
    line = {"color": colour, "width": 2}
    speed = grid / _model_s(link, grid)
    return [go.Scatter(x=grid, y=speed, mode="lines", name=f"{name} model", line=line, hovertemplate=tip)]


def _points(name: str, sizes: IntGlobal, seconds: Any, colour: str) -> list[Any]:
    import plotly.graph_objects as go

    marker = {"color": colour, "size": 7, "opacity": 0.7, "line": {"width": 0}}
    tip = f"{name}<br>%{{x:,}} bytes: %{{y:.3s}}B/s<extra></extra>"
    speed = (sizes / seconds).astype(np.float32)
    return [go.Scatter(x=sizes, y=speed, mode="markers", name=name, marker=marker, hovertemplate=tip)]
