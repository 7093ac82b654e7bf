"""The page of a report: one file that opens offline, with every figure drawn when it is first looked at."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsecomm import __version__
from sparsecomm.apps.report.case import Case
from sparsecomm.apps.report.files import written
from sparsecomm.apps.report.maps import map_views, matrix_view
from sparsecomm.apps.report.speeds import bandwidth_view
from sparsecomm.apps.report.timeline import timeline_view
from sparsecomm.apps.report.transfers import Transfers
from sparsecomm.apps.report.tree import tree_view
from sparsecomm.apps.report.volumes import volume_views
from sparsecomm.apps.report.words import machine_of
from sparsecomm.apps.summary import Json
from sparsecomm.errors import InputError

if TYPE_CHECKING:
    from sparsecomm.apps.report.view import View


def views_of(case: Case, report: Json, transfers: Transfers) -> list[View]:
    """Return all figures of a report, in the order of the tabs."""
    volumes = list(volume_views(case, report))
    times = [*bandwidth_view(case, transfers), *timeline_view(case, transfers)]
    return [*volumes[:1], *map_views(case), *times, *volumes[1:], *tree_view(case), *matrix_view(case)]


def write_page(path: Path, case: Case, report: Json, transfers: Transfers) -> int:
    """Write the page, beside and then renamed, and return its size in bytes.

    Raises:
        InputError: plotly is not installed, or `path` cannot be written.
    """
    text = make_page(report, views_of(case, report, transfers))
    with written(path) as beside:
        beside.write_text(text, encoding="utf-8")
    return path.stat().st_size


def check_plotly() -> None:
    """Refuse to go on without plotly.

    Raises:
        InputError: with the command that installs it.
    """
    try:
        import plotly  # noqa: F401
    except ImportError as err:
        raise InputError("the page needs plotly; install it with: pip install 'sparsecomm[report]'") from err


def make_page(report: Json, views: Sequence[View]) -> str:
    """Return the text of the page."""
    from plotly.offline import get_plotlyjs

    folder = files("sparsecomm.apps.report")
    parts = {
        "TITLE": html.escape(_title(report)),
        "FACTS": html.escape(_facts(report)),
        "CARDS": "\n".join(f"<li><strong>{a}</strong><span>{b}</span></li>" for a, b in _cards(report)),
        "WORDS": html.escape(report["words"]),
        "TABS": "\n".join(_tab(key, title, first=n == 0) for n, (key, title) in enumerate(_keys(views))),
        "PANELS": "\n".join([*(_panel(view, first=n == 0) for n, view in enumerate(views)), _tables(report)]),
        "FOOTER": html.escape(
            f"sparsecomm {__version__}. Predicted times are for the machine that the topology describes."
        ),
        "REPORT": _embed(report),
        "CSS": folder.joinpath("page.css").read_text(),
        "JS": folder.joinpath("page.js").read_text(),
        "PLOTLY": get_plotlyjs(),
    }
    pieces = folder.joinpath("page.html").read_text().split("@")
    return "".join(parts.get(piece, piece) if n % 2 else piece for n, piece in enumerate(pieces))


def _embed(value: Any) -> str:
    """Return JSON that no end of a script can hide in."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _title(report: Json) -> str:
    matrix = report["matrix"]["name"] if report["matrix"] else report["name"]
    what = "planned for" if report["kind"] == "plan" else "measured on"
    return f"{Path(matrix).name} {what} {machine_of(report)}"


def _facts(report: Json) -> str:
    topology, matrix = report["topology"], report["matrix"]
    facts = [f"{topology['ranks']:,} ranks on {topology['nodes']:,} nodes"]
    if matrix:
        facts.append(f"{matrix['rows']:,} x {matrix['cols']:,}, {matrix['nnz']:,} nonzeros")
    if report["partition"]:
        facts.append(f"partition {report['partition']['method']}")
    if report["strategy"]:
        facts.append(f"strategy {report['strategy']}")
    facts.append(f"X has {report['width']} columns of {report['dtype']}")
    if report["kind"] == "run" and report["products"]:
        facts.append(f"{report['products']} products recorded")
    return " · ".join(facts)


def _cards(report: Json) -> Iterator[tuple[str, str]]:
    network = list(report["levels"])[-1]
    level, time = report["levels"][network], report["time"]
    yield _bytes(level["bytes"]), f"over the {network} in one product"
    yield f"{level['rows']:,}", f"{network} rows in {level['messages']:,} messages"
    if report["saved"] and report["strategy"] != report["saved"]["naive"]:
        yield f"{100 * report['saved']['share']:.1f} %", f"saved over {report['saved']['naive']}"
    if report["bounds"]:
        yield f"{100 * report['bounds']['gap']:.1f} %", "above the lower bound"
    yield f"{level['imbalance']:.2f}", "busiest rank over the mean"
    if time["measured_s"]:
        yield _seconds(time["measured_s"]), "a product, measured"
    if time["predicted_s"]:
        yield _seconds(time["predicted_s"]), "a product, predicted"
    if time["parts"] and time["parts"]["overlap"] is not None:
        yield f"{100 * time['parts']['overlap']:.0f} %", "of communication hidden"


def _bytes(value: int) -> str:
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value} B"


def _seconds(value: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"


def _keys(views: Sequence[View]) -> list[tuple[str, str]]:
    return [*((view.key, view.title) for view in views), ("numbers", "Numbers")]


def _tab(key: str, title: str, *, first: bool) -> str:
    state = f'aria-selected="{str(first).lower()}" tabindex="{0 if first else -1}"'
    return (
        f'<button role="tab" type="button" id="tab-{key}" aria-controls="{key}" {state}>{html.escape(title)}</button>'
    )


def _panel(view: View, *, first: bool) -> str:
    from plotly.io.json import to_json_plotly

    figure = to_json_plotly(view.figure).replace("<", "\\u003c")
    hidden = "" if first else " hidden"
    return (
        f'<section class="panel" role="tabpanel" id="{view.key}" aria-labelledby="tab-{view.key}" tabindex="0"{hidden}>'
        f'<h2>{html.escape(view.title)}</h2><div class="figure"></div>'
        f'<p class="caption">{html.escape(view.caption)}</p>'
        f'<script id="{view.key}-figure" type="application/json">{figure}</script></section>'
    )


def _tables(report: Json) -> str:
    levels = [
        (
            *(name, one["rows"], one["bytes"], one["messages"], one["max_rank_bytes"]),
            *(f"{one['imbalance']:.2f}", _seconds(one["predicted_s"])),
        )
        for name, one in reversed(report["levels"].items())
    ]
    stages = [
        (f"{one['part']}, stage {one['stage']}", one["level"], one["rows"], one["bytes"], one["messages"])
        for one in report["stages"]
    ]
    ranks = [
        (one["rank"], one["node"], one["network_bytes_in"], one["network_bytes_out"], one["bytes_in"], one["bytes_out"])
        for one in report["busiest_ranks"]
    ]
    heads = (
        (
            "Levels",
            ("level", "rows", "bytes", "messages", "bytes of the busiest rank", "max / mean", "predicted"),
            levels,
        ),
        ("Stages", ("stage", "level", "rows", "bytes", "messages"), stages),
        ("Busiest ranks", ("rank", "node", "network bytes in", "network bytes out", "bytes in", "bytes out"), ranks),
    )
    tables = "".join(_table(*head) for head in heads)
    return (
        '<section class="panel" role="tabpanel" id="numbers" aria-labelledby="tab-numbers" tabindex="0" hidden>'
        f"<h2>Numbers</h2>{tables}</section>"
    )


def _table(title: str, names: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{_cell(value)}</td>' for value in line)}</tr>" for line in lines)
    return f'<div class="scroll"><table><caption>{title}</caption><tr>{head}</tr>{body}</table></div>'


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else html.escape(str(value))
