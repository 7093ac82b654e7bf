"""Reports as tables on standard output."""

from __future__ import annotations

import sys
from typing import Any, Final

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.tree import Tree

from sparsecomm.product import Product
from sparsecomm.topology import Level, Topology
from sparsecomm.typing import IntGlobal

Json = dict[str, Any]

_PAGE: Final = 100  # columns that people read at a glance
_WIDE: Final = 200  # columns; a table takes what it needs of them


def show_plan(report: Json) -> None:
    """Print what every strategy would move, and which was chosen."""
    console = make_console()
    _show_header(console, report)
    _show_strategies(console, report, report["chosen"], {})
    _show_bounds(console, report)
    _show_prediction(console, report)
    hits = (report["cache"] or {}).get("hits", 0)
    console.print(f"planned in {report['seconds']:.2f} s" + (f", {hits} of its parts from the cache" if hits else ""))


def show_spmm(report: Json) -> None:
    """Print what every strategy would move, how long the chosen one took, and whether it was right."""
    console = make_console()
    _show_header(console, report)
    median = report["time_s"]["median"]
    _show_strategies(console, report, report["chosen"], {report["chosen"]: median})
    _show_bounds(console, report)
    _show_prediction(console, report)
    if report["guard"]:
        tried = ", ".join(f"{name} {seconds(value)}" for name, value in report["guard"]["seconds"].items())
        when = "as measured before" if report["guard"]["cached"] else "measured now"
        console.print(f"tried {tried}: kept {report['guard']['kept']}, {when}")
    times = ", ".join(f"{name} {seconds(report['time_s'][name])}" for name in ("median", "min", "max"))
    what = "A.T @ X" if report["transpose"] else "A @ X"
    console.print(f"{what} on {counted(report['ranks'], 'rank')}{', on GPUs' if report['gpu'] else ''}: {times}")
    _show_exposed(console, report)
    for plan, levels in (report.get("gpu_transports") or {}).items():
        chosen = ", ".join(f"{level} {found['transport']} ({found['why']})" for level, found in levels.items())
        console.print(f"rows of the {plan} go by: {chosen}")
    if report["calibration"] is None:
        console.print(
            f"predicted times are for the machine that topology {report['topology']['name']} describes; "
            "measured times are of this machine (--calibration predicts it; see `sparsecomm calibrate`)"
        )
    console.print("executed rows, bytes and messages of every level equal the plan")
    if report["verified"] is not None:
        verdict = "verified against scipy" if report["verified"] else "WRONG: differs from scipy"
        error = report["max_error"]
        console.print(f"{verdict}, " + ("not finite" if error is None else f"max error {error:.1e}"))


def _show_exposed(console: Console, report: Json) -> None:
    if report["chunks_tried"]:
        tried = ", ".join(f"{number}: {seconds(time_s)}" for number, time_s in report["chunks_tried"].items())
        console.print(f"tried chunks of columns, {tried}")
    if report["exposed_s"]:
        exposed = ", ".join(f"{name} {seconds(value)}" for name, value in report["exposed_s"].items())
        cut = f" in {report['chunks']} chunks of columns" if report["chunks"] > 1 else ""
        console.print(f"exposed communication of a product{cut}, over the ranks: {exposed}")


def show_partition(report: Json) -> None:
    """Print balance and the volumes that the partition leaves."""
    console = make_console()
    _show_header(console, report)
    console.print(_metrics_table(report))
    _show_strategies(console, report, "", {})
    _show_bounds(console, report)


def show_resharded(report: Json) -> None:
    """Print balance and the rows that a gather moves."""
    console = make_console()
    _show_header(console, report)
    for level, rows in report["gather_rows"].items():
        console.print(f"{level}: {rows:,} rows of X")


def _metrics_table(report: Json) -> Table:
    """Lay out the rows that enter the groups of every level, gathered, reduced and covered."""
    metrics = report["metrics"]
    balance = ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in metrics["imbalance"].items())
    table = Table(title=f"rows that enter the groups of a level; load over meant load: {balance}", title_justify="left")
    for name in ("level", "", "rows", "most into one", "most out of one", "mean", "messages"):
        table.add_column(name, justify="left" if name in ("level", "") else "right")
    for level, ways in reversed(metrics["levels"].items()):
        for number, (way, found) in enumerate(ways.items()):
            cells = (found["rows"], found["max_in"], found["max_out"], round(found["mean"]), found["messages"])
            table.add_row("" if number else level, way, *(f"{cell:,}" for cell in cells))
    return table


def show_nodes(product: Product) -> None:
    """Print the rows into and out of every node, the busiest first; at most the first twenty."""
    topology = product.topology
    src, dst, rows = product.node_rows()
    num_in, num_out = (np.bincount(end, rows, topology.num_nodes).astype(np.int64) for end in (dst, src))
    table = Table(title="network rows by node", title_justify="left")
    for name in ("node", "ranks", "in", "out"):
        table.add_column(name, justify="right")
    ranks = np.bincount(topology.rank_to_node, minlength=topology.num_nodes)
    order = np.argsort(-np.maximum(num_in, num_out), kind="stable")[:20]
    for node in order:
        table.add_row(*(f"{int(value):,}" for value in (node, ranks[node], num_in[node], num_out[node])))
    make_console().print(table)
    if topology.num_nodes > order.size:
        print(f"and {topology.num_nodes - order.size} nodes with fewer")
    print(_pair_text(order, src, dst, rows))


def _pair_text(nodes: IntGlobal, src: IntGlobal, dst: IntGlobal, rows: IntGlobal) -> str:
    """Lay out the rows from node to node, for the nodes given and in their order."""
    found = dict(zip(zip(src.tolist(), dst.tolist(), strict=True), rows.tolist(), strict=True))
    names = nodes.tolist()
    lines = [["", *map(str, names)]]
    for line in names:
        lines.append([str(line), *(f"{found[line, to]:,}" if (line, to) in found else "." for to in names)])
    width = max(len(cell) for line in lines for cell in line) + 2
    text = "\n".join("".join(f"{cell:>{width}}" for cell in line) for line in lines)
    return f"network rows from node (line) to node (column)\n{text}"


def show_topology(topology: Topology) -> None:
    """Print the levels with what they cost, and the tree of small topologies."""
    table = Table(title=str(topology), title_justify="left")
    for name in ("level", "groups", "ranks a group", "latency", "bandwidth of a port", "ports", "load/store"):
        table.add_column(name, justify="left" if name == "level" else "right")
    for number, level in enumerate(topology.levels):
        table.add_row(*_level_row(topology, number, level))
    console = make_console()
    console.print(table)
    if topology.num_ranks <= 64:
        console.print(_tree(topology))


def make_console() -> Console:
    """Return a console that prints names as they are: `er:100:8` holds what rich takes for an emoji."""
    width = None if sys.stdout.isatty() else _WIDE  # rich takes a file or a pipe for a terminal of 80 columns
    return _Console(width=width, soft_wrap=True, highlight=False, markup=False, emoji=False)


class _Console(Console):
    """A console that leaves a broken pipe to its caller; rich would end the process with exit code 1."""

    def on_broken_pipe(self) -> None:
        raise  # what rich has just caught


def seconds(value: float) -> str:
    """Return a time with three digits and the unit that suits it."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"


def _show_header(console: Console, report: Json) -> None:
    matrix, topology, partition = report["matrix"], report["topology"], report["partition"]
    balance = partition["imbalance"]
    console.print(
        f"{matrix['name']}: {matrix['rows']:,} x {matrix['cols']:,}, {matrix['nnz']:,} nonzeros", highlight=False
    )
    console.print(
        f"{topology['name']}: {counted(topology['ranks'], 'rank')} on {counted(topology['nodes'], 'node')}, "
        f"levels {' < '.join(topology['levels'])}",
    )
    console.print(
        f"partition {partition['method']}: {partition['seconds']:.2f} s, "
        f"imbalance (max/mean) rows {balance['rows']:.2f}, "
        f"nonzeros {balance['nnz']:.2f}, nonzeros of nodes {balance['node_nnz']:.2f}",
    )
    if "width" in report:
        console.print(f"X has {report['width']} columns of {report['dtype']}")


def counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _show_strategies(console: Console, report: Json, chosen: str, measured: dict[str, float]) -> None:
    """Print the strategies side by side where they fit the terminal and a page, one below the other where not."""
    table = _strategy_columns(report, chosen, measured)
    needed = Measurement.get(console, console.options.update(max_width=10_000), table).maximum
    if needed > min(console.width, _PAGE):
        table = _strategy_lines(report, chosen, measured)
    console.print(table)
    reasons = report["not_counted"]
    for reason in dict.fromkeys(reasons.values()):
        names = ", ".join(name for name in reasons if reasons[name] == reason)
        console.print(f"{names} not counted: {reason}")


def _strategy_columns(report: Json, chosen: str, measured: dict[str, float]) -> Table:
    """Lay out rows, MB and savings per level, messages and times, one column for each strategy."""
    found = _entries(report)
    table = Table()
    table.add_column("level")
    table.add_column("")
    for name in found:
        table.add_column(f"{name} *" if name == chosen else name, justify="right", overflow="fold")
    levels = list(reversed(report["topology"]["levels"]))
    for level in levels:
        table.add_row(level, "rows", *(f"{entry['rows'][level]:,}" for entry in found.values()))
        table.add_row("", "MB", *(f"{entry['bytes'][level] / 1e6:,.2f}" for entry in found.values()))
        if level == levels[0]:
            table.add_row("", "rows saved", *(_saved(report, entry) for entry in found.values()))
    table.add_row("all", "messages", *(f"{sum(entry['messages'].values()):,}" for entry in found.values()))
    table.add_row("", "predicted", *(seconds(entry["predicted_s"]) for entry in found.values()))
    if measured:
        table.add_row("", "measured", *(seconds(measured[name]) if name in measured else "" for name in found))
    return table


def _strategy_lines(report: Json, chosen: str, measured: dict[str, float]) -> Table:
    """Lay out rows per level, what is saved, messages and times, one line for each strategy."""
    levels = list(reversed(report["topology"]["levels"]))
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("strategy")
    for name in (*levels, "saved", "MB", "messages", "predicted", *(["measured"] if measured else [])):
        table.add_column(name, justify="right")
    for name, entry in _entries(report).items():
        cells = [f"{entry['rows'][level]:,}" for level in levels]
        cells += [_saved(report, entry), f"{entry['bytes'][levels[0]] / 1e6:,.1f}"]
        cells += [f"{sum(entry['messages'].values()):,}", seconds(entry["predicted_s"])]
        cells += [seconds(measured[name])] if name in measured else []
        table.add_row(f"{name} *" if name == chosen else name, *cells)
    table.caption = f"rows moved at each level; saved and MB of {levels[0]} rows"
    table.caption_justify = "left"
    return table


def _entries(report: Json) -> Json:
    return {name: entry for name, entry in report["strategies"].items() if entry is not None}


def _saved(report: Json, entry: Json) -> str:
    """Return the share of network rows that a strategy saves over `direct`, where that was counted."""
    network, direct = report["topology"]["levels"][-1], report["strategies"]["direct"]
    base = direct["rows"][network] if direct else 0
    return f"{100 * (1 - entry['rows'][network] / base):.1f} %" if base else "-"


def _show_bounds(console: Console, report: Json) -> None:
    network = report["topology"]["levels"][-1]
    minimum, lower = report["two_party_minimum"]["network"], report["lower_bound"]
    console.print(
        f"{network} rows: two-party minimum {minimum:,}, lower bound {lower['network']:,} "
        f"(busiest node {lower['busiest_node']:,})"
    )
    console.print(_gap_lines(report))


def _show_prediction(console: Console, report: Json) -> None:
    """Print what the predicted time of the chosen strategy is made of, the largest part first."""
    entry = report["strategies"][report["chosen"]]
    parts = sorted(entry["predicted_parts_s"].items(), key=lambda part: -part[1])
    shown = " + ".join(f"{name} {seconds(value)}" for name, value in parts if value)
    hidden = sum(entry["predicted_parts_s"].values()) - entry["predicted_s"]
    shown += f" - {seconds(hidden)} side by side" if hidden > 1e-9 * entry["predicted_s"] else ""
    console.print(f"predicted {seconds(entry['predicted_s'])}" + (f" = {shown}" if shown else ""))
    if report["calibration"]:
        console.print(f"predicted with what was measured, {report['calibration']}")


def _gap_lines(report: Json) -> Table:
    """Lay out what crosses the network, all together and at the busiest node, each beside its distance to its bound."""
    network = report["topology"]["levels"][-1]
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("strategy")
    for name in (network, "over bound", "busiest node", "over bound", "busiest rank"):
        table.add_column(name, justify="right")
    for name, entry in _entries(report).items():
        gap, busiest = entry["gap_percent"], max(entry["max_node_rows"].values())
        cells = [f"{entry['rows'][network]:,}", _percent(gap["network"])]
        cells += [f"{busiest:,}", _percent(gap["busiest_node"]), f"{entry['max_rank_rows'][network]:,}"]
        table.add_row(name, *cells)
    table.caption = f"{network} rows, in or out of a node and a rank, and how far above the lower bound"
    table.caption_justify = "left"
    return table


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} %"


def _level_row(topology: Topology, number: int, level: Level) -> list[str]:
    sizes = np.bincount(topology.group_of(number))
    size = str(sizes.min()) if sizes.min() == sizes.max() else f"{sizes.min()}-{sizes.max()}"
    return [
        level.name,
        f"{topology.num_groups(number):,}",
        size,
        seconds(level.latency_s),
        f"{level.bandwidth_Bps / 1e9:.3g} GB/s",
        str(level.ports),
        "yes" if level.load_store else "no",
    ]


def _tree(topology: Topology) -> Tree:
    root = Tree(topology.levels[-1].name)
    branches: dict[tuple[int, int], Tree] = {(topology.num_levels - 1, 0): root}
    for rank in range(topology.num_ranks):
        parent = root
        for level in range(topology.num_levels - 2, -1, -1):
            group = int(topology.group_of(level)[rank])
            if (level, group) not in branches:
                branches[level, group] = parent.add(f"{topology.levels[level].name} {group}")
            parent = branches[level, group]
        parent.add(f"rank {rank}")
    return root
