"""The report of a local product on standard output."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from sparsecomm.launch.tables import make_console, seconds

Json = dict[str, Any]


def show_kernel(report: Json) -> None:
    """Print what was predicted and measured, and which memory limits it."""
    console, matrix = make_console(), report["matrix"]
    console.print(f"{matrix['name']}: {matrix['rows']:,} x {matrix['cols']:,}, {matrix['nnz']:,} nonzeros")
    console.print(f"X has {report['width']} columns of {report['dtype']}; threads: {report['threads']}")
    table = Table("", "time", box=None, pad_edge=False, show_header=False)
    for name, value in (("predicted", report["predicted_s"]), ("measured", report["measured_s"]["median"])):
        table.add_row(name, seconds(value))
    table.add_row("bound", f"{seconds(report['bound_s'])}, by {report['limit']}")
    console.print(table)
    console.print(f"{report['percent_of_bound']:.0f} % of the bound, {report['flops_per_s'] / 1e9:.1f} Gflop/s")
    console.print("predicted / measured: " + f"{report['predicted_over_measured']:.2f}")
    _show_limits(console, report)
    staged = report["staged"]
    console.print(
        f"Tiled SpMM, blocks of {staged['block_rows']} rows, stages of {staged['stage_columns']} columns: footprint "
        f"{staged['footprint']:,.1f}, stages {staged['stages']:.2f}, padding {staged['padding']:.2f}, reuse "
        f"{staged['reuse']:.2f}"
    )
    order = report["reorder"]
    found = f"{order['after']:,} by {order['method']}, " if order["method"] != "none" else ""
    console.print(
        f"columns of all blocks of rows: {order['before']:,} as stored, {found}"
        f"no order below {order['bound']:,} ({order['after'] / max(1, order['bound']):.2f} x the bound)"
    )


def _show_limits(console: Console, report: Json) -> None:
    table = Table("memory", "MB", "at its best rate", box=None, pad_edge=False)
    for name, value in report["limits_s"].items():
        table.add_row(name, f"{report['moved_bytes'][name] / 1e6:,.1f}", seconds(value))
    console.print(table)
