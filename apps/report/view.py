"""One view of the page: a figure of plotly, and what a reader needs to know about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sparsecomm.typing import IntGlobal

if TYPE_CHECKING:
    import plotly.graph_objects as go

# Okabe and Ito 2008: told apart by people with any of the common kinds of colour blindness.
COLOURS: Final = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#999999")
# Cividis (Nunez, Anderton, Renslow 2018) without its darkest part, which is lost on a dark page.
SCALE: Final = ("#31446b", "#4e576c", "#666970", "#7d7c78", "#958f78", "#afa371", "#cab969", "#e6cf59", "#fee838")
_HEIGHT: Final = 520


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A tab of the page.

    Args:
        key: of the tab, for links.
        title: on the tab.
        caption: how to read the figure, one or two sentences.
        figure: of plotly.
    """

    key: str
    title: str
    caption: str
    figure: go.Figure


def make_figure(title: str, *traces: Any, height: int = _HEIGHT, **layout: Any) -> go.Figure:
    """Return a figure whose colours for text and paper the page chooses."""
    import plotly.graph_objects as go

    given: dict[str, Any] = {
        "title": {"text": title, "x": 0, "xanchor": "left", "font": {"size": 16}, "xref": "paper"},
        "height": height,
        "margin": {"l": 70, "r": 30, "t": 60, "b": 60},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "legend": {"orientation": "h", "traceorder": "normal", "y": 1, "yanchor": "bottom", "x": 1, "xanchor": "right"},
        "hoverlabel": {"align": "left"},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "#8b949e", "activecolor": COLOURS[0]},
        "template": "none",
    }
    return go.Figure(data=list(traces), layout=given | layout)


def log_heat(cells: IntGlobal, **more: Any) -> Any:
    """Return a heat map on a logarithmic scale; the page takes the logarithms, so that it holds every number once."""
    import plotly.graph_objects as go

    return go.Heatmap(
        customdata=cells.astype(np.int32 if cells.max(initial=0) < 2**31 else np.float64),
        colorscale=list(SCALE),
        hoverongaps=False,
        meta="log10 of customdata",
        **more,
    )


def level_colours(names: list[str]) -> dict[str, str]:
    """Return a colour for every level, the outermost always the same."""
    return {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(reversed(names))}
