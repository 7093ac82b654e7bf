"""A report (`sparsecomm.report/1`) as tables on standard output."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from sparsecomm.launch.tables import counted, make_console, seconds

Json = dict[str, Any]


def show_report(report: Json) -> None:
    """Print the tables of a report and, last, what they say in words."""
    console = make_console()
    _show_head(console, report)
    console.print(_level_table(report))
    if report["stages"]:
        console.print(_stage_table(report))
    if report["time"]["parts"]:
        console.print(_part_table(report["time"]["parts"]))
    for table in _busiest_tables(report):
        console.print(table)
    for line in _comparisons(report):
        console.print(line)
    console.print(f"\n{report['words']}")


def mega(value: float | None) -> str:
    """Return bytes as MB."""
    return "" if value is None else f"{value / 1e6:,.3f}"


def rate(value: float | None) -> str:
    """Return bytes a second with three digits."""
    if value is None:
        return ""
    for unit, scale in (("GB/s", 1e9), ("MB/s", 1e6)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value / 1e3:.3g} kB/s"


def _show_head(console: Console, report: Json) -> None:
    matrix, topology = report["matrix"], report["topology"]
    what = "plan" if report["kind"] == "plan" else "run"
    if matrix:
        size = f"{matrix['rows']:,} x {matrix['cols']:,}, {matrix['nnz']:,} nonzeros"
        console.print(f"{what} {report['name']}: {matrix['name']}, {size}")
    else:
        console.print(f"{what} {report['name']}")
    levels = " < ".join(level["name"] for level in topology["levels"])
    ranks, nodes = counted(topology["ranks"], "rank"), counted(topology["nodes"], "node")
    console.print(f"{topology['name']}: {ranks} on {nodes}, levels {levels}")
    if report["strategy"]:
        console.print(f"strategy {report['strategy']}, X has {report['width']} columns of {report['dtype']}")
    if report["calibrated"]:
        console.print(f"predictions and peaks by what was measured on {report['calibrated']}")
    if report["kind"] == "run":
        times = report["products"]
        console.print(f"{counted(times, 'product')} recorded, figures are of one" if times else "figures are of all")
    for rank, why in list(report["missing"].items())[:8]:
        console.print(f"rank {rank}: {why}")


def _level_table(report: Json) -> Table:
    found = report["levels"]
    in_place, lines = any(level["bytes_loaded"] for level in found.values()), []
    for name in reversed(found):
        level = found[name]
        measured = level["measured"] or {}
        share = measured["bandwidth_Bps"] / level["peak_Bps"] if measured else None
        lines.append(
            (
                name,
                f"{level['rows']:,}",
                mega(level["bytes"]),
                *([mega(level["bytes_loaded"])] if in_place else []),
                f"{level['messages']:,}",
                mega(level["max_rank_bytes"]),
                f"{level['imbalance']:.2f}",
                seconds(level["predicted_s"]),
                seconds(measured["seconds"]) if measured else "",
                rate(measured.get("bandwidth_Bps")),
                rate(level["peak_Bps"]),
                "" if share is None else f"{100 * share:.2g} %",
            )
        )
    names = ("level", "rows", "MB", *(["MB in place"] if in_place else []), "messages", "MB busiest", "max/mean")
    names = (*names, "predicted", "measured", "bandwidth", "peak", "of peak")
    return _table("what moves at each level", names, lines)


def _stage_table(report: Json) -> Table:
    names = ["plan", "stage", "level", "rows", "MB", "messages", "busiest rank"]
    parts = ("pack", "send", "wait", "unpack", "transfer") if report["kind"] == "run" else ()
    lines = []
    for stage in report["stages"]:
        cells = (stage["rows"], stage["messages"])
        line = [stage["part"], str(stage["stage"]), stage["level"], f"{cells[0]:,}", mega(stage["bytes"])]
        line += [f"{cells[1]:,}", f"{stage['busiest_rank']}: {mega(stage['busiest_rank_bytes'])} MB"]
        measured = stage["measured"] or {}
        lines.append([*line, *(_time(measured.get(f"{part}_s")) for part in parts)])
    title = "stages; seconds of all ranks together, transfer of one message" if parts else "stages"
    return _table(title, [*names, *parts], lines)


def _part_table(parts: Json) -> Table:
    lines = [(name, seconds(mean), seconds(parts["max_s"][name])) for name, mean in parts["mean_s"].items()]
    lines += [
        (name, seconds(parts[key]["mean"]), seconds(parts[key]["max"]))
        for name, key in (("exposed communication", "exposed_s"), ("runs under way", "under_way_s"))
    ]
    return _table("seconds of one product", ("", "mean of the ranks", "most of a rank"), lines)


def _busiest_tables(report: Json) -> Iterable[Table]:
    lines = [
        (
            str(one["rank"]),
            str(one["node"]),
            *(mega(one[f"{scope}bytes_{way}"]) for scope in ("network_", "") for way in ("in", "out")),
            f"{one['messages_in']:,}",
            f"{one['messages_out']:,}",
        )
        for one in report["busiest_ranks"][:5]
    ]
    names = ("rank", "node", "network MB in", "network MB out", "MB in", "MB out", "messages in", "messages out")
    yield _table("busiest ranks", names, lines)
    links = [
        (
            f"{one['src_node']} -> {one['dst_node']}",
            f"{one['rows']:,}",
            mega(one["bytes"]),
            f"{one['messages']:,}",
        )
        for one in report["busiest_links"][:5]
    ]
    if links:
        yield _table("busiest links between nodes", ("nodes", "rows", "MB", "messages"), links)


def _comparisons(report: Json) -> Iterable[str]:
    saved, bounds, planned, time = (report[name] for name in ("saved", "bounds", "planned", "time"))
    if planned:
        verdict = "equal the plan" if planned["equal"] else "DIFFER from the plan"
        yield f"executed rows, bytes and messages of every level {verdict}"
    if saved:
        yield (
            f"{saved['level']} rows: {saved['rows']:,}, {saved['naive']} {saved['naive_rows']:,}: "
            f"saved {100 * saved['share']:.1f} %"
        )
    if bounds:
        yield (
            f"lower bound {bounds['lower_bound']:,} (gap {100 * bounds['gap']:.1f} %), two-party minimum "
            f"{bounds['two_party_minimum']:,}"
        )
    if time["predicted_s"]:
        measured = f", measured {seconds(time['measured_s'])}" if time["measured_s"] else ""
        yield f"a product: predicted {seconds(time['predicted_s'])}{measured}"


def _time(value: float | None) -> str:
    return "" if value is None else seconds(value)


def _table(title: str, names: Sequence[str], lines: Iterable[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for number, name in enumerate(names):
        table.add_column(name, justify="left" if number == 0 or name in ("level", "plan") else "right")
    for line in lines:
        table.add_row(*line)
    return table


def show_comparison(found: Json) -> None:
    """Print the figures of two reports side by side (`sparsecomm.compare/1`), and the rules that are broken."""
    console = make_console()
    for side, name in (("first", "A"), ("second", "B")):
        head = found[side]
        console.print(
            f"{name}: {head['kind']} {head['name']}, {head['matrix']}, {head['topology']}, {head['strategy']}"
        )
    lines = [
        (name, _figure(one["first"]), _figure(one["second"]), "" if one["ratio"] is None else f"{one['ratio']:.3f}")
        for name, one in found["figures"].items()
    ]
    console.print(_table("", ("figure", "A", "B", "B / A"), lines))
    for rule in found["broken"]:
        console.print(f"broken: {rule}")


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value == int(value) else f"{value:.4g}"
