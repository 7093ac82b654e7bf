"""Every partition method on many matrices and machines: rows over the network, balance, seconds.

The table goes to standard output, everything measured to the JSON file of --json. Ratios compare methods on the same
matrix; seconds are of the machine named at the top, library and refinement together.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from _machine import machine, machine_text

from sparsecomm.io.matrix import read_matrix
from sparsecomm.layout import Layouts
from sparsecomm.partition.auto import best, portfolio
from sparsecomm.partition.child import Child
from sparsecomm.partition.goals import judge
from sparsecomm.partition.metrics import Crossing, balance_json
from sparsecomm.partition.registry import partition_rows
from sparsecomm.partition.request import Request
from sparsecomm.topology import Topology

Json = dict[str, Any]
METHODS = (
    *("block", "nnz", "random", "rcm", "streaming", "metis", "metis/flat", "metis-vol", "kaminpar", "twins"),
    *("mtkahypar", "mtkahypar-graph", "mtkahypar-map", "auto"),
)
MACHINES = ("summit:2", "summit:8", "uniform:4x8")
GENERATED = ("radixnet:16384:0", "radixnet:16384:5", "radixnet:16384:9", "grid3d:64", "rmat:18")


def measure_one(matrix: Any, name: str, machine_name: str, method: str, timeout_s: float) -> Json:
    """Partition once and count; a method that fails says why."""
    topology = Topology.parse(machine_name)
    case: Json = {"matrix": name, "topology": machine_name, "method": method}
    request = Request(timeout_s=timeout_s)
    bare, _, variant = method.partition("/")
    begin = time.perf_counter()
    try:
        if bare == "auto":
            trials = portfolio(matrix, topology, request)
            chosen = best(trials)
            layouts = chosen.layouts
            case["chose"] = chosen.name
            case["tried"] = {trial.name: trial.value if trial.layouts else trial.reason for trial in trials}
        else:
            flat = variant == "flat"
            layouts = partition_rows(matrix, topology, bare, flat=flat, refine=not flat, timeout_s=timeout_s)
    except Exception as err:
        return case | {"failed": str(err)}
    assert layouts is not None
    case["seconds"] = time.perf_counter() - begin
    return case | facts(matrix, layouts, topology, request)


def facts(matrix: Any, layouts: Layouts, topology: Topology, request: Request) -> Json:
    """Return network rows, busiest node, balance, and the value that `auto` judges by."""
    between = Crossing.of(matrix, layouts).between(topology.rank_to_node)
    gather, cover = (between.traffic(way, topology.num_nodes) for way in ("gather", "cover"))
    heaviest = int(np.diff(matrix.indptr).max(initial=0))
    return {
        "gather": gather.rows,
        "cover": cover.rows,
        "busiest": cover.busiest,
        "imbalance": balance_json(matrix, layouts, topology, request),
        "heaviest_row_over_mean": heaviest * topology.num_ranks / max(matrix.nnz, 1),
        "judged": judge(matrix, layouts, topology, request),
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/matrices"), help="folder of real matrices")
    parser.add_argument("--matrices", nargs="*", help="generators or files, instead of all")
    parser.add_argument("--machines", nargs="*", default=MACHINES)
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--timeout", type=float, default=300.0)
    parser.add_argument("--json", type=Path, help="write everything here; a file that exists is gone on with")
    args = parser.parse_args()
    real = sorted(str(path) for path in args.data.glob("*.*")) if args.data.is_dir() else []
    cases = json.loads(args.json.read_text())["cases"] if args.json and args.json.exists() else []
    done = {(case["matrix"], case["topology"], case["method"]) for case in cases}
    with Child.kept():
        for spec in args.matrices or [*real, *GENERATED]:
            name, matrix = Path(spec).name, None
            for machine_name in args.machines:
                for method in args.methods:
                    if (name, machine_name, method) in done:
                        continue
                    matrix = read_matrix(spec) if matrix is None else matrix
                    cases.append(measure_one(matrix, name, machine_name, method, args.timeout))
                    print(line(cases[-1]), file=sys.stderr, flush=True)
                    if args.json:
                        write(args.json, cases)
    print(machine_text(machine()))
    print(table(cases))
    return 0


def write(path: Path, cases: list[Json]) -> None:
    path.write_text(json.dumps({"machine": machine(), "cases": cases}, indent=1) + "\n")


def table(cases: list[Json]) -> str:
    """Return one line per case, the matrices and machines in the order measured."""
    head = f"{'matrix':20s} {'machine':12s} {'method':16s} {'gather':>9s} {'cover':>9s} {'busiest':>8s}"
    head += f" {'node nnz':>8s} {'rank nnz':>8s} {'judged':>9s} {'s':>7s}"
    return "\n".join([head, *map(line, cases)])


def line(case: Json) -> str:
    """Return one case as a line."""
    start = f"{case['matrix']:20s} {case['topology']:12s} {case['method']:16s}"
    if "failed" in case:
        return f"{start} failed: {case['failed'][:80]}"
    balance = case["imbalance"]
    chose = f" ({case['chose']})" if "chose" in case else ""
    counts = f"{case['gather']:9,d} {case['cover']:9,d} {case['busiest']:8,d}"
    return (
        f"{start} {counts} {balance['node_nnz']:8.3f} {balance['nnz']:8.3f} {case['judged']:9.4g} "
        f"{case['seconds']:7.2f}{chose}"
    )


if __name__ == "__main__":
    sys.exit(main())
