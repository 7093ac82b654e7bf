"""A training step with `--amp` and with `--stale`, beside the same step without: here, and over slow links.

    python benchmarks/gnn_options.py [--json FILE] [--here 1 2] [--clusters 2x1 4x2] [--graph rmat:15]

What the figures mean: benchmarks/README.md. Clusters need root and Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from _cluster import can_make_cluster, cluster, one_node
from _machine import machine, machine_text
from _results import Json, read_results, write_results
from gnn_peers import cut

from sparsecomm.launch.world import env_size
from sparsecomm.topology import Topology

Place = tuple[str, Topology, AbstractContextManager[Callable[..., None]]]


def main() -> int:
    args = _arguments()
    if env_size(os.environ) is not None:
        from _gnn_options_job import run

        run(args)
        return 0
    found: Json = read_results(args.json, {"places": {}})
    found["machine"] = machine()
    for name, topology, place in _places(args):
        with tempfile.TemporaryDirectory(prefix="sparsecomm-bench-") as scratch:
            graph, results = Path(scratch) / "graph", Path(scratch) / "results.json"
            cut(args, topology, graph)
            with place as run_there:
                options = ["--results", str(results), "--cut", str(graph)]
                run_there(sys.executable, __file__, *sys.argv[1:], *options)
            found["places"][name] = json.loads(results.read_text())
        write_results(args.json, found)
    _report(args, found)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep every place, measured last or before")
    parser.add_argument("--here", nargs="*", type=int, default=[1, 2], help="ranks on this machine (1 2)")
    parser.add_argument("--clusters", nargs="*", default=["2x1", "4x2"], help="nodes x ranks of each (2x1 4x2)")
    parser.add_argument("--graph", default="rmat:15", help="a matrix file or a generator (rmat:15)")
    parser.add_argument("--features", type=int, default=128, help="of a node (128)")
    parser.add_argument("--hidden", type=int, default=64, help="columns of hidden layers (64)")
    parser.add_argument("--layers", type=int, default=3, help="of the model (3)")
    parser.add_argument("--partition", default="block", help="of the nodes (block)")
    parser.add_argument("--bandwidth", default="1gbit", help="of each link of the cluster, each way (1gbit)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each (5)")
    parser.add_argument("--steps", type=int, default=3, help="timed together in a turn, after two that are not (3)")
    parser.add_argument("--results", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--cut", help=argparse.SUPPRESS)
    return parser.parse_args()


def _places(args: argparse.Namespace) -> Iterator[Place]:
    for ranks in args.here:
        yield f"{ranks} rank{'s' * (ranks > 1)} here", Topology.parse(f"uniform:1x{ranks}"), one_node(ranks)
    for size in args.clusters if can_make_cluster() else []:
        nodes, ranks = (int(count) for count in size.split("x"))
        place = cluster("gnn-options", nodes, ranks, args.bandwidth)
        yield f"{size}, {args.bandwidth} links", Topology.parse(f"uniform:{size}"), place


def _report(args: argparse.Namespace, found: Json) -> None:
    print(machine_text(found["machine"]))
    print(f"\n{args.graph}, {args.features} features, {args.layers} layers, hidden {args.hidden}; one thread a rank;")
    print(f"{args.rounds} turns of {args.steps} steps; ratios are taken within each round: median [quartiles];")
    print("above 1, the option is faster than the same step without it\n")
    print(f"{'':32s}{'ms a step':>12s}{'without / with':>22s}{'MB a step':>12s}{'loss in the end':>18s}")
    for place, alternatives in found["places"].items():
        print(place)
        for name, one in alternatives.items():
            low, middle, high = one["faster"]
            ratio = f"{middle:.2f} [{low:.2f}, {high:.2f}]" if one["without"] else ""
            times = f"{1e3 * one['seconds']:>12.1f}{ratio:>22s}"
            print(f"  {name:30s}{times}{one['bytes'] / 1e6:>12.1f}{one['loss']:>18.4f}")


if __name__ == "__main__":
    sys.exit(main())
