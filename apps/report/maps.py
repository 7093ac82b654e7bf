"""Who sends how much to whom: rank to rank, node to node, and where the nonzeros lie."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from sparsecomm.apps.report.case import Case
from sparsecomm.apps.report.view import View, log_heat, make_figure
from sparsecomm.topology import Topology
from sparsecomm.typing import IntGlobal, IntRank

MAX_SHOWN: Final = 512  # ranks or nodes a map shows one by one
_BLOCKS: Final = 256  # into how many blocks more of them are put together


class Map(NamedTuple):
    """Bytes from group to group.

    Args:
        cells: (num_groups, num_groups) int64; `cells[i, j]` bytes go from group i to group j.
        size: ranks or nodes in a group, the last may have fewer.
        noun: `rank` or `node`.
    """

    cells: IntGlobal
    size: int
    noun: str

    @property
    def what(self) -> str:
        """What a group is, for people, before the number of its first: `rank`, or `5 ranks from`."""
        return self.noun if self.size == 1 else f"{self.size} {self.noun}s from"


def rank_map(case: Case) -> Map:
    """Return bytes from rank to rank, or between blocks of ranks where there are more than can be shown."""
    return _map(case, np.arange(case.topology.num_ranks, dtype=np.int32), case.topology.num_ranks, "rank")


def node_map(case: Case) -> Map:
    """Return bytes from node to node; inside a node none go over the network."""
    return _map(case, case.topology.rank_to_node, case.topology.num_nodes, "node")


def _map(case: Case, member: IntRank, count: int, noun: str) -> Map:
    size = 1 if count <= MAX_SHOWN else -(-count // _BLOCKS)
    groups, traffic = -(-count // size), case.traffic
    cell = member[traffic.src].astype(np.int64) // size * groups + member[traffic.dst] // size
    return Map(np.bincount(cell, traffic.num_bytes, groups**2).astype(np.int64).reshape(groups, groups), size, noun)


def map_views(case: Case) -> Iterator[View]:
    """Yield the heat maps of ranks and of nodes."""
    ranks, nodes = rank_map(case), node_map(case)
    yield _view("ranks", "Ranks", ranks, _lines(case.topology, ranks))
    if 1 < case.topology.num_nodes < case.topology.num_ranks:
        yield _view("nodes", "Nodes", nodes, [])


def _view(key: str, title: str, found: Map, lines: list[float]) -> View:
    together = f", {found.size} {found.noun}s in a cell" if found.size > 1 else ""
    text = (
        f"Bytes that each {found.noun} (left) sends to each other (below) in one product. Colours are on a logarithmic "
        "scale; empty cells send nothing. Drag to zoom, double-click to zoom out."
    )
    if lines:
        text += " Thin lines part the nodes."
    figure = make_figure(f"Bytes from {found.noun} to {found.noun}{together}", _heat(found), height=640)
    half, plain = found.size / 2, {"constrain": "domain", "zeroline": False, "showgrid": False}
    last = len(found.cells) * found.size - half
    figure.update_xaxes(title=f"to {found.noun}", range=[-half, last], **plain)
    figure.update_yaxes(title=f"from {found.noun}", range=[last, -half], scaleanchor="x", **plain)
    figure.update_layout(shapes=_grid(lines, last))
    return View(key, title, text, figure)


def _heat(found: Map) -> Any:
    some = found.cells[found.cells > 0]
    least, most = (int(some.min()), int(some.max())) if some.size else (1, 1)
    ticks = np.arange(np.ceil(np.log10(least)), np.floor(np.log10(most)) + 1)
    bar = {"title": "bytes", "tickvals": ticks, "ticktext": [power(tick) for tick in ticks], "outlinewidth": 0}
    what = found.what
    tip = f"from {what} %{{y:,}} on<br>to {what} %{{x:,}} on<br>%{{customdata:,}} bytes<extra></extra>"
    if found.size == 1:
        tip = tip.replace(" on<", "<")
    return log_heat(found.cells, dx=found.size, dy=found.size, colorbar=bar, hovertemplate=tip)


def power(tick: float) -> str:
    """Return 10 to the power of `tick` as people write bytes."""
    for unit, least in (("T", 12), ("G", 9), ("M", 6), ("k", 3)):
        if tick >= least:
            return f"{10 ** (tick - least):.0f} {unit}B"
    return f"{10**tick:.0f} B"


def _lines(topology: Topology, found: Map) -> list[float]:
    """Return where nodes begin on the axes of a map of ranks, if they lie side by side and are few."""
    node = topology.rank_to_node
    starts = np.flatnonzero(np.diff(node))
    if found.size > 1 or starts.size != topology.num_nodes - 1 or starts.size > 64:
        return []
    return [float(start) + 0.5 for start in starts]


def _grid(lines: list[float], last: float) -> list[dict[str, Any]]:
    style = {"type": "line", "line": {"width": 1, "color": "rgba(128,128,128,0.6)"}}
    rows = [style | {"x0": -0.5, "x1": last, "y0": at, "y1": at} for at in lines]
    return rows + [style | {"y0": -0.5, "y1": last, "x0": at, "x1": at} for at in lines]


def matrix_view(case: Case) -> Iterator[View]:
    """Yield the picture of the reordered matrix, if the plan or run holds one."""
    picture, matrix = case.report.get("density"), case.report.get("matrix")
    if not picture or not matrix:
        return
    cells = np.array(picture["cells"], dtype=np.int64)
    heat = log_heat(cells, showscale=False, hovertemplate="%{customdata:,} nonzeros<extra></extra>")
    title = f"Nonzeros of {Path(matrix['name']).name}, rows and columns in the order of their owners"
    figure = make_figure(title, heat, height=640)
    last = [number - 0.5 for number in cells.shape]
    figure.update_xaxes(range=[-0.5, last[1]], constrain="domain", visible=False)
    figure.update_yaxes(range=[last[0], -0.5], scaleanchor="x", constrain="domain", visible=False)
    nodes = picture["nodes"]
    if nodes:
        style = {"type": "line", "line": {"width": 1, "color": "rgba(213,94,0,0.7)"}}
        rows = [style | {"x0": -0.5, "x1": last[1], "y0": v, "y1": v} for v in _at(nodes["rows"], cells.shape[0])]
        cols = [style | {"y0": -0.5, "y1": last[0], "x0": v, "x1": v} for v in _at(nodes["cols"], cells.shape[1])]
        figure.update_layout(shapes=rows + cols)
    size = " x ".join(f"{matrix[side] / n:,.0f}" for side, n in zip(("rows", "cols"), cells.shape, strict=True))
    text = (
        f"Each cell counts the nonzeros of {size} entries, on a logarithmic scale. Lines part the nodes: what lies off "
        "the diagonal blocks has to be communicated."
    )
    yield View("matrix", "Matrix", text, figure)


def _at(shares: list[float], cells: int) -> list[float]:
    return [share * cells - 0.5 for share in shares[1:]]
