"""Every partition method on many matrices and machines: rows over the network, balance, seconds.

The table goes to standard output, everything measured to the JSON file of --json. Ratios compare methods on the same
matrix; seconds are of the machine named at the top, library and refinement together.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _machine import machine, machine_text
from _results import Json, read_results

from sparsecomm.errors import SparseCommError
from sparsecomm.io.matrix import read_matrix
from sparsecomm.layout import Layouts
from sparsecomm.partition.auto import best, portfolio
from sparsecomm.partition.child import Child
from sparsecomm.partition.goals import judge
from sparsecomm.partition.metrics import Crossing, balance_json
from sparsecomm.partition.registry import partition_rows
from sparsecomm.partition.request import Request
from sparsecomm.table import distinct
from sparsecomm.topology import Topology

TRIED = ("block", "nnz", "rcm", "streaming", "twins", "metis", "kaminpar")  # what `auto` tries by itself
AUTO = ("auto", "auto/network")  # judged by time, and by rows of the cover
OTHERS = ("random", "metis/flat", "metis-vol", "mtkahypar", "mtkahypar-graph", "mtkahypar-map")
MACHINES = ("summit:2", "summit:8", "uniform:4x8")
GENERATED = ("radixnet:16384:0", "radixnet:16384:5", "radixnet:16384:9", "grid3d:64", "rmat:18")


def measure_auto(matrix: Any, name: str, machine_name: str, timeout_s: float) -> list[Json]:
    """Let `auto` try what it tries: a case of each method, and one of what it chooses for either goal."""
    topology, start = Topology.parse(machine_name), {"matrix": name, "topology": machine_name}
    request = Request(timeout_s=timeout_s)
    begin = time.perf_counter()
    trials = portfolio(matrix, topology, request)
    seconds, cases = time.perf_counter() - begin, {}
    for trial in trials:
        found = facts(matrix, trial.layouts, topology, request) if trial.layouts else {"failed": trial.reason}
        cases[trial.name] = {**start, "method": trial.name, "seconds": trial.seconds} | found
    for method, of_case in zip(AUTO, ("judged", "cover"), strict=True):
        named = [replace(trial, value=cases[trial.name].get(of_case, np.inf)) for trial in trials]
        chosen = best(named).name
        cases[method] = cases[chosen] | {"method": method, "chose": chosen, "seconds": seconds}
    return list(cases.values())


def measure_one(matrix: Any, name: str, machine_name: str, method: str, timeout_s: float) -> list[Json]:
    """Partition once and count; a method that fails says why."""
    topology = Topology.parse(machine_name)
    case: Json = {"matrix": name, "topology": machine_name, "method": method}
    bare, _, variant = method.partition("/")
    flat = variant == "flat"
    begin = time.perf_counter()
    try:
        layouts = partition_rows(matrix, topology, bare, flat=flat, refine=not flat, timeout_s=timeout_s)
    except SparseCommError as err:
        return [case | {"failed": str(err)}]
    case["seconds"] = time.perf_counter() - begin
    return [case | facts(matrix, layouts, topology, Request())]


def facts(matrix: Any, layouts: Layouts, topology: Topology, request: Request) -> Json:
    """Return network rows, busiest node, balance, and the value that `auto` judges by."""
    crossing = Crossing.of(matrix, layouts)
    between = crossing.between(topology.rank_to_node)
    gather, cover = (between.traffic(way, topology.num_nodes) for way in ("gather", "cover"))
    heaviest = int(np.diff(matrix.indptr).max(initial=0))
    return {
        "direct": direct_rows(crossing, topology),
        "gather": gather.rows,
        "cover": cover.rows,
        "busiest": cover.busiest,
        "imbalance": balance_json(matrix, layouts, topology, request),
        "heaviest_row_over_mean": heaviest * topology.num_ranks / max(matrix.nnz, 1),
        "judged": judge(matrix, layouts, topology, request),
    }


def direct_rows(crossing: Crossing, topology: Topology) -> int:
    """Return the rows over the network where every rank fetches its own."""
    node = topology.rank_to_node
    away = np.flatnonzero(node[crossing.row_rank] != node[crossing.col_rank])
    return int(distinct([crossing.row_rank[away], crossing.col[away]])[0].size)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/matrices"), help="folder of real matrices")
    parser.add_argument("--matrices", nargs="*", help="generators or files, instead of all")
    parser.add_argument("--machines", nargs="*", default=MACHINES)
    parser.add_argument("--methods", nargs="*", default=("auto", *OTHERS))
    parser.add_argument("--timeout", type=float, default=300.0)
    parser.add_argument("--json", type=Path, help="write everything here; a file that exists is gone on with")
    args = parser.parse_args()
    real = sorted(str(path) for path in args.data.glob("*.*")) if args.data.is_dir() else []
    cases = read_results(args.json, {"cases": []})["cases"]
    done = {(case["matrix"], case["topology"], case["method"]) for case in cases}
    with Child.kept():
        for spec in args.matrices or [*real, *GENERATED]:
            name, matrix = Path(spec).name, None
            for machine_name in args.machines:
                for method in args.methods:
                    if (name, machine_name, method) in done:
                        continue
                    matrix = read_matrix(spec) if matrix is None else matrix
                    measure = measure_auto if method == "auto" else partial(measure_one, method=method)
                    cases += measure(matrix, name, machine_name, timeout_s=args.timeout)
                    print(line(cases[-1]), file=sys.stderr, flush=True)
                    if args.json:
                        write(args.json, cases)
    print(machine_text(machine()))
    print(table(cases))
    print(summary(cases, {Path(name).name for name in real}))
    return 0


def write(path: Path, cases: list[Json]) -> None:
    path.write_text(json.dumps({"machine": machine(), "cases": cases}, indent=1) + "\n")


def summary(cases: list[Json], real: set[str]) -> str:
    """Return whether `auto` is never above what it tried, and geometric means over the real matrices."""
    found = {(case["matrix"], case["topology"], case["method"]): case for case in cases if "failed" not in case}
    places = sorted({place[:2] for place in found if place[2] == "auto"})
    above = [
        f"{matrix} on {machine_name}: {method}"
        for matrix, machine_name in places
        for method in TRIED
        if within(found.get((matrix, machine_name, method)))
        and found[matrix, machine_name, method]["cover"] < found[matrix, machine_name, "auto/network"]["cover"]
    ]
    lines = [f"auto/network: {len(places)} rows, in {len(above)} of them a balanced method it tried moves less"]
    pairs = (("metis", "cover", "metis/flat", "cover"), ("auto/network", "cover", "metis/flat", "cover"))
    published = (("auto/network", way, "block", "direct") for way in ("direct", "gather", "cover"))
    for method, way, other, other_way in (*pairs, *published, ("block", "gather", "block", "direct")):
        ratios = [
            (found[*place, method][way] + 1) / (found[*place, other][other_way] + 1)
            for place in places
            if place[0] in real and (*place, method) in found and (*place, other) in found
        ]
        if ratios:
            mean = float(np.exp(np.mean(np.log(ratios))))
            lines.append(
                f"{method} {way} / {other} {other_way}: {mean:.3f}, geometric mean of {len(ratios)} rows of the table"
            )
    return "\n".join(lines)


def within(case: Json | None) -> bool:
    """Return whether a case keeps the balance: 5 % beyond the mean, or the heaviest row."""
    if case is None:
        return False
    largest = max(1.05, case["heaviest_row_over_mean"])
    return bool(case["imbalance"]["nnz"] <= largest + 0.001 and case["imbalance"]["node_nnz"] <= largest + 0.001)


def table(cases: list[Json]) -> str:
    """Return one line per case, the matrices and machines in the order measured."""
    head = f"{'matrix':20s} {'machine':12s} {'method':16s} {'direct':>9s} {'gather':>9s} {'cover':>9s} {'busiest':>8s}"
    head += f" {'node nnz':>8s} {'rank nnz':>8s} {'judged':>9s} {'s':>7s}"
    return "\n".join([head, *map(line, cases)])


def line(case: Json) -> str:
    """Return one case as a line."""
    start = f"{case['matrix']:20s} {case['topology']:12s} {case['method']:16s}"
    if "failed" in case:
        return f"{start} failed: {case['failed'][:80]}"
    balance = case["imbalance"]
    chose = f" ({case['chose']})" if "chose" in case else ""
    counts = f"{case['direct']:9,d} {case['gather']:9,d} {case['cover']:9,d} {case['busiest']:8,d}"
    return (
        f"{start} {counts} {balance['node_nnz']:8.3f} {balance['nnz']:8.3f} {case['judged']:9.4g} "
        f"{case['seconds']:7.2f}{chose}"
    )


if __name__ == "__main__":
    sys.exit(main())
