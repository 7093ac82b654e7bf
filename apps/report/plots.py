"""Single pictures for papers, by matplotlib."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sparsecomm.apps.report.case import Case
from sparsecomm.apps.report.files import written
from sparsecomm.apps.report.maps import Map, node_map, rank_map
from sparsecomm.apps.report.view import COLOURS, level_colours
from sparsecomm.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS: Final = (".png", ".svg", ".pdf")
_DPI: Final = 200


def write_plot(kind: str, path: Path, case: Case) -> None:
    """Draw one picture of a plan or run.

    Args:
        kind: one of `KINDS`.
        path: a file whose ending names the format.
        case: what to draw.

    Raises:
        InputError: matplotlib is not installed, the ending is unknown, or the case has nothing to draw.
    """
    if path.suffix not in FORMATS:
        raise InputError(f"{path} ends with none of {', '.join(FORMATS)}; choose a picture's format by its name")
    try:
        from matplotlib.figure import Figure
    except ImportError as err:
        raise InputError("plots need matplotlib; install it with: pip install 'sparsecomm[report]'") from err
    figure = Figure(figsize=(5.0, 4.0), layout="constrained")
    KINDS[kind](figure.add_subplot(), case)
    with written(path) as beside:
        figure.savefig(beside, format=path.suffix[1:], dpi=_DPI)


def _ranks(axes: Axes, case: Case) -> None:
    _heat(axes, rank_map(case))


def _nodes(axes: Axes, case: Case) -> None:
    _heat(axes, node_map(case))


def _heat(axes: Axes, found: Map) -> None:
    from matplotlib.colors import LogNorm

    if not found.cells.any():
        raise InputError("nothing moves: there is nothing to draw")
    last = len(found.cells) * found.size - found.size / 2
    extent = (-found.size / 2, last, last, -found.size / 2)
    shown = np.ma.masked_equal(found.cells, 0)
    image = axes.imshow(shown, norm=LogNorm(), cmap="cividis", extent=extent, interpolation="nearest")
    assert axes.figure is not None  # a subplot has one
    axes.figure.colorbar(image, ax=axes, label="bytes in one product")
    axes.set(xlabel=f"to {found.noun}", ylabel=f"from {found.noun}")


def _levels(axes: Axes, case: Case) -> None:
    found = {name: entry for name, entry in (case.report.get("strategies") or {}).items() if entry}
    if not found:
        raise InputError(f"{case.path} does not say what other strategies would move; plan or record it anew")
    names, levels = list(found), list(reversed(case.topology.level_names))
    colours, width = level_colours(case.topology.level_names), 0.8 / len(levels)
    for number, level in enumerate(levels):
        values = [found[name]["rows"][level] * case.row_bytes / 1e6 for name in names]
        axes.bar(np.arange(len(names)) + number * width, values, width, label=level, color=colours[level])
    ticks = [f"{name} *" if name == case.report.get("chosen") else name for name in names]
    axes.set_xticks(np.arange(len(names)) + 0.4 - width / 2, ticks, rotation=45, ha="right")
    axes.set_ylabel("MB in one product")
    axes.legend(frameon=False)


def _messages(axes: Axes, case: Case) -> None:
    traffic, colours = case.traffic, level_colours(case.topology.level_names)
    sizes = traffic.num_bytes // np.maximum(traffic.count, 1)
    if not sizes.size:
        raise InputError("nothing moves: there is nothing to draw")
    bins = 2.0 ** np.arange(np.floor(np.log2(max(sizes.min(), 1))), np.ceil(np.log2(max(sizes.max(), 2))) + 1)
    levels = [number for number in range(case.topology.num_levels) if (traffic.level == number).any()]
    names = [case.topology.level_names[number] for number in levels]
    data: list[Any] = [sizes[traffic.level == number] for number in levels]
    axes.hist(data, bins=bins.tolist(), stacked=True, label=names, color=[colours[name] for name in names])
    axes.set(xscale="log", xlabel="bytes of a message", ylabel="messages of one product")
    axes.legend(frameon=False)


def _matrix(axes: Axes, case: Case) -> None:
    from matplotlib.colors import LogNorm

    picture = case.report.get("density")
    if not picture:
        raise InputError(f"{case.path} holds no picture of its matrix; plan or record it anew")
    cells = np.array(picture["cells"])
    axes.imshow(np.ma.masked_equal(cells, 0), norm=LogNorm(), cmap="cividis", interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    for side, draw in (("rows", axes.axhline), ("cols", axes.axvline)):
        for share in (picture["nodes"] or {}).get(side, [])[1:]:
            draw(share * cells.shape[side == "cols"] - 0.5, color=COLOURS[3], linewidth=0.6)


KINDS: Final[dict[str, Callable[[Any, Case], None]]] = {
    "levels": _levels,
    "matrix": _matrix,
    "messages": _messages,
    "nodes": _nodes,
    "ranks": _ranks,
}
