"""The table of `sparsecomm plan --what-if`."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table

from sparsecomm.launch.tables import Json, make_console, seconds


def show_what_if(report: Json) -> None:
    """Print one line for each case: the strategy that wins there, its time, and what limits it."""
    out, cases = make_console(), report["cases"]
    first = cases[0]["matrix"]
    out.print(
        f"{first['name']}: {first['rows']:,} x {first['cols']:,}, {first['nnz']:,} nonzeros, partition "
        f"{report['partition']}, {report['dtype']}" + (", growing with the ranks" * (report["scaling"] == "weak"))
    )
    out.print(_table(cases))
    out.print("wins: " + ", ".join(f"{name} {count}" for name, count in report["wins"].items()))
    for name, reason in _left_out(cases).items():
        out.print(f"{name} not counted everywhere: {reason}")
    out.print("predicted times are of models of these machines; see docs/concepts.md")


def _table(cases: list[Json]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("topology", "ranks", *cases[0]["settings"], "k", "best", "network rows"):
        table.add_column(name, justify="left" if name in ("topology", "best") else "right")
    for name in ("predicted", "direct", "limited by", "speed-up", "efficiency"):
        table.add_column(name, justify="left" if name == "limited by" else "right")
    for case in cases:
        table.add_row(*_cells(case))
    return table


def _cells(case: Json) -> list[str]:
    best, topology, direct = case["strategies"][case["chosen"]], case["topology"], case["strategies"].get("direct")
    share = best["predicted_parts_s"][case["limit"]] / sum(best["predicted_parts_s"].values() or [1.0])
    return [
        topology["name"],
        f"{topology['ranks']:,}",
        *case["settings"].values(),
        str(case["width"]) + (f" in {case['depth']}" if case["depth"] > 1 else ""),
        case["chosen"],
        f"{best['rows'][topology['levels'][-1]]:,}",
        seconds(case["predicted_s"]),
        seconds(direct["predicted_s"]) if direct else "",
        f"{case['limit']} {100 * share:.0f} %",
        f"{case['speedup']:.2f}",
        f"{100 * case['efficiency']:.1f} %",
    ]


def _left_out(cases: list[Json]) -> Json:
    return {name: reason for case in cases for name, reason in case["not_counted"].items()}
