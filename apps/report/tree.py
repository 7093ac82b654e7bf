"""The machine as a tree, its links as wide as what goes through them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np

from sparsecomm.apps.report.case import Case
from sparsecomm.apps.report.view import SCALE, View, make_figure
from sparsecomm.typing import Floats, IntGlobal

_LEAVES: Final = 400  # groups drawn side by side; more are drawn in bunches
_BUNCHES: Final = 96
_CLASSES: Final = 6  # of load, each of one width and colour


class Layer(NamedTuple):
    """The groups of a level, or bunches of them, from left to right.

    Args:
        name: of the level; `rank` below the innermost.
        size: groups in a bunch.
        parent: (n,) int64, the mark of the layer above that each hangs from.
        loads: (2, n) bytes out of and into each; of a bunch, those of its busiest group.
    """

    name: str
    size: int
    parent: IntGlobal
    loads: Floats


def tree_view(case: Case) -> Iterator[View]:
    """Yield the tree of the topology with the bytes that go up and down each of its links."""
    layers = layers_of(case)
    x = _places(layers)
    most = max(float(layer.loads.max(initial=0.0)) for layer in layers[1:]) or 1.0
    traces = [*_edges(layers, x, most), *(_marks(depth, layer, x[depth]) for depth, layer in enumerate(layers))]
    figure = make_figure(
        "Bytes through the links of the machine in one product",
        *traces,
        height=120 * len(layers) + 220,
        showlegend=False,
        xaxis={"visible": False},
        yaxis={
            "tickvals": [-depth for depth in range(len(layers))],
            "ticktext": [layer.name for layer in layers],
            "range": [-len(layers) + 0.4, 0.6],
            "showgrid": False,
            "zeroline": False,
            "showline": False,
        },
    )
    text = (
        "Each link carries what leaves or enters the group below it. The wider and the brighter, the more bytes; hover "
        "over a group for the bytes in and out."
    )
    if layers[-1].size > 1:
        last = layers[-1]
        text += f" Each mark at the bottom stands for {last.size} {last.name}s, its link for the busiest of them."
    elif layers[-1].name != "rank":
        text += f" Only groups down to {layers[-1].name} are drawn."
    yield View("topology", "Topology", text, figure)


def layers_of(case: Case) -> list[Layer]:
    """Return the layers of the tree from the outermost group down, as far as they can be drawn."""
    topology = case.topology
    layers = [Layer(topology.level_names[-1], 1, np.zeros(1, dtype=np.int64), np.zeros((2, 1)))]
    for level in range(topology.num_levels - 2, -2, -1):
        name = "rank" if level < 0 else topology.level_names[level]
        parent = topology.group_of(level + 1)[topology.first_of_group(level)].astype(np.int64)
        layer = Layer(name, 1, parent, _loads(case, level))
        if parent.size <= _LEAVES:
            layers.append(layer)
        elif len(layers) == 1:
            return [*layers, _bunched(layer)]
        else:
            break
    return layers


def _bunched(layer: Layer) -> Layer:
    size = -(-layer.parent.size // _BUNCHES)
    starts = np.arange(0, layer.parent.size, size)
    return Layer(layer.name, size, layer.parent[starts], np.maximum.reduceat(layer.loads, starts, axis=1))


def _loads(case: Case, level: int) -> Floats:
    """Return (2, num_groups): bytes out of and into every group of a level."""
    topology, traffic = case.topology, case.traffic.take(case.traffic.level > level)
    group, count = topology.group_of(level), topology.num_groups(level)
    return np.stack([np.bincount(group[side], traffic.num_bytes, count) for side in (traffic.src, traffic.dst)])


def _places(layers: Sequence[Layer]) -> list[Floats]:
    """Return where on its line every mark stands: the lowest side by side, all others over the middle of theirs."""
    above = [np.arange(layers[-1].parent.size)]
    for layer in layers[:0:-1]:
        above.append(layer.parent[above[-1]])
    place = np.empty(above[0].size)
    place[np.lexsort(above)] = np.arange(place.size)  # marks below the same one lie together
    found = [place]
    for layer in layers[:0:-1]:
        found.insert(0, np.bincount(layer.parent, found[0]) / np.maximum(np.bincount(layer.parent), 1))
    return found


def _edges(layers: Sequence[Layer], x: Sequence[Floats], most: float) -> Iterator[Any]:
    """Yield the links of each class of load."""
    import plotly.colors as colors
    import plotly.graph_objects as go

    lines: list[tuple[list[float | None], list[float | None]]] = [([], []) for _ in range(_CLASSES)]
    for depth, (_, layer) in enumerate(pairwise(layers)):
        bins = np.minimum(layer.loads.max(axis=0) / most * _CLASSES, _CLASSES - 1).astype(np.int64)
        ends = zip(x[depth][layer.parent].tolist(), x[depth + 1].tolist(), bins.tolist(), strict=True)
        for upper, lower, number in ends:
            lines[number][0].extend([upper, lower, None])
            lines[number][1].extend([-depth, -depth - 1, None])
    shades = colors.sample_colorscale(list(SCALE), np.linspace(0, 1, _CLASSES).tolist())
    for number, (xs, ys) in enumerate(lines):
        style = {"color": shades[number], "width": 1 + 1.6 * number}
        yield go.Scatter(x=xs, y=ys, mode="lines", line=style, hoverinfo="skip")


def _marks(depth: int, layer: Layer, x: Floats) -> Any:
    import plotly.graph_objects as go

    first = np.arange(x.size) * layer.size
    tip = f"{layer.name} %{{customdata[0]}}"
    if layer.size > 1:
        tip = f"{layer.size} {layer.name}s from %{{customdata[0]}} on"
    if depth:
        which = "" if layer.size == 1 else ", the busiest"
        tip += f"<br>%{{customdata[1]:,.0f}} bytes out{which}<br>%{{customdata[2]:,.0f}} bytes in{which}"
    return go.Scatter(
        x=x,
        y=np.full(x.size, -depth),
        mode="markers",
        customdata=np.stack([first, *layer.loads], axis=1),
        marker={"size": 11 if x.size <= 64 else 6, "color": "#56B4E9", "line": {"width": 1, "color": "#777777"}},
        hovertemplate=f"{tip}<extra></extra>",
    )
