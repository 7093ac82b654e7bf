"""The greedy cover of node pairs beside the minimum: rows above it, and the time both take.

    python benchmarks/cover.py [--json FILE] [--repeats 7]

What the figures mean: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, Final

from _machine import machine, machine_text

from sparsecomm.cover import ServedBy, greedy_node_cover, node_cover
from sparsecomm.io.generators import is_generator
from sparsecomm.io.matrix import read_matrix
from sparsecomm.layout import Layout, Layouts
from sparsecomm.pattern import Remote
from sparsecomm.table import Offline
from sparsecomm.topology import Topology

Json = dict[str, Any]

MATRICES: Final = Path(__file__).resolve().parents[2] / "shared" / "data" / "matrices"
CASES: Final = (
    ("ego-twitter.npz", "uniform:8x6"),
    ("soc-slashdot0902.npz", "uniform:4x8"),
    ("gene_go_all.npz", "uniform:4x8"),
    ("c-62.mtx.gz", "uniform:4x4"),
    ("copter2.graph.gz", "uniform:4x8"),
    ("mdual.graph.gz", "uniform:8x6"),
    ("cnr-2000.npz", "uniform:8x6"),
    ("rmat:16:16", "summit:8"),
    ("er:100000:8", "uniform:4x4"),
    ("radixnet:16384:9", "summit:8"),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything measured to FILE")
    parser.add_argument("--repeats", type=int, default=7, help="runs of each, in turn (7)")
    args = parser.parse_args()
    results = {"machine": machine(), "cases": [_case(*case, args.repeats) for case in CASES if _there(case[0])]}
    _report(results)
    if args.json is not None:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


def _there(name: str) -> bool:
    return is_generator(name) or (MATRICES / name).exists()


def _case(name: str, spec: str, repeats: int) -> Json:
    """Solve both ways once to warm up, then in turn; the ratio is taken within each turn."""
    matrix = read_matrix(name if is_generator(name) else str(MATRICES / name))
    topology = Topology.parse(spec)
    layouts = Layouts(*(Layout.block(size, topology.num_ranks) for size in matrix.shape))

    def timed(solve: Callable[[Remote, Topology, Offline], ServedBy]) -> tuple[int, float]:
        remote = Remote.of(matrix, layouts)
        begin = time.perf_counter()
        return solve(remote, topology, Offline(topology.num_ranks)).size, time.perf_counter() - begin

    pairs = [(timed(node_cover), timed(greedy_node_cover)) for _ in range(repeats + 1)][1:]
    (rows, _), (greedy, _) = pairs[0]
    return {
        "matrix": name,
        "topology": spec,
        "rows": rows,
        "greedy_rows": greedy,
        "seconds": [exact[1] for exact, _ in pairs],
        "greedy_seconds": [approximate[1] for _, approximate in pairs],
    }


def _report(results: Json) -> None:
    print(machine_text(results["machine"]))
    print(
        f"\n{'matrix':22s} {'topology':12s} {'minimum':>10s} {'greedy':>10s} {'gap':>7s} {'greedy : minimum, s':>20s}"
    )
    for case in results["cases"]:
        ratios = sorted(b / a for a, b in zip(case["seconds"], case["greedy_seconds"], strict=True))
        gap = 100 * (case["greedy_rows"] / case["rows"] - 1)
        times = f"{median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]"
        print(
            f"{case['matrix']:22s} {case['topology']:12s} {case['rows']:10,} {case['greedy_rows']:10,} "
            f"{gap:5.2f} % {times:>20s}"
        )


if __name__ == "__main__":
    sys.exit(main())
