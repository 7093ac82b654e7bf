"""Products whole, in chunks of columns and one after the other, side by side on a virtual cluster with slow links.

    python benchmarks/pipeline.py [--json FILE] [--matrices ego-twitter.npz,grid3d:64] [--bandwidth 1gbit]

Needs root and Linux. What the figures mean: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Final

from _cluster import COMMAND, can_make_cluster, cluster
from _machine import machine, machine_text
from _results import Json, words, write_results
from peers import DATA

from sparsecomm.apps.source import load_source, save_source
from sparsecomm.launch.world import env_size
from sparsecomm.topology import Topology

MATRICES: Final = (str(DATA / "ego-twitter.npz"), "grid3d:64")


def main() -> int:
    args = _arguments()
    if env_size(os.environ) is not None:
        from _pipeline_job import run

        run(args)
        return 0
    if not can_make_cluster():
        return 0
    with tempfile.TemporaryDirectory(prefix="sparsecomm-bench-") as scratch:
        results, measured, folder = (Path(scratch) / name for name in ("results.json", "calibration.json", "matrix"))
        cases: list[Json] = []
        with cluster("pipeline", args.nodes, args.ranks_per_node, args.bandwidth) as run:
            run(*COMMAND, "calibrate", "-o", str(measured))
            hidden = ["--results", str(results), "--calibration", str(measured), "--folder", str(folder)]
            for spec in args.matrices:
                topology = Topology.parse(f"uniform:{args.nodes}x{args.ranks_per_node}")
                save_source(folder, load_source(spec, topology, method="block"), topology)
                run(sys.executable, __file__, *sys.argv[1:], *hidden)
                found = json.loads(results.read_text())
                facts = machine() | found["facts"]
                if not cases:
                    _report_setting(args, facts)
                _report(found["cases"])
                cases += found["cases"]
                write_results(args.json, {"machine": facts, "cases": cases})
    return 0


def _arguments() -> argparse.Namespace:
    def numbers(text: str) -> list[int]:
        return [int(word) for word in words(text)]

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything measured to FILE")
    parser.add_argument("--matrices", type=words, default=list(MATRICES), help="by commas")
    parser.add_argument("--strategy", default="auto", help="of the plan (auto, by what was measured on the cluster)")
    parser.add_argument("--widths", type=numbers, default=[64, 256], help="columns of X, float32 (64,256)")
    parser.add_argument("--chunks", type=numbers, default=[1, 2, 4, 8], help="by commas; 1 is compared with (1,2,4,8)")
    parser.add_argument("--in-a-row", type=int, default=3, help="blocks that `products` is given (3)")
    parser.add_argument("--nodes", type=int, default=4, help="of the cluster (4)")
    parser.add_argument("--ranks-per-node", type=int, default=2, help="of each node (2)")
    parser.add_argument("--bandwidth", default="1gbit", help="of each link, each way (1gbit)")
    parser.add_argument("--rounds", type=int, default=10, help="paired repetitions (10)")
    for hidden in ("--results", "--calibration", "--folder"):
        parser.add_argument(hidden, type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _report_setting(args: argparse.Namespace, facts: dict[str, str]) -> None:
    print(machine_text(facts))
    print(f"\n{args.nodes} nodes of {args.ranks_per_node} ranks, {args.bandwidth} links, float32, block partition")
    print(f"chunks of columns, what auto found, and `products` of {args.in_a_row} blocks in a row, for each of them")
    print("a ratio is taken within each round, above 1 faster than whole; median [quartiles]")
    print("exposed: share of the time in which a rank only communicates, mean of the ranks", flush=True)


def _report(cases: list[Json]) -> None:
    for case in cases:
        tried = ", ".join(f"{number}: {1e3 * seconds:.1f} ms" for number, seconds in case["auto"]["tried"].items())
        print(f"\n{case['matrix']}, width {case['width']}, {case['strategy']}")
        print(f"  {'':10s}{'ms':>10s}{'whole / it':>22s}{'exposed':>10s}")
        for name, one in case["alternatives"].items():
            low, middle, high = one["faster"]
            ratio, share = f"{middle:.3f} [{low:.3f} {high:.3f}]", f"{100 * one['exposed']:.0f} %"
            print(f"  {name:10s}{1e3 * one['seconds'][1]:10.2f}{ratio:>22s}{share:>10s}")
        print(f"  auto keeps {case['auto']['kept']}" + (f" of {tried}" if tried else ", and tries nothing"))
        print(f"  the same bits all ways; largest error against scipy {case['max_error']:.1e}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
