"""A training step over slow links: ours, and `torch.distributed` (gloo) by hand, in one job on a virtual cluster.

    python benchmarks/gnn_peers.py [--json FILE] [--graph rmat:18] [--bandwidth 1gbit] [--rounds 5]

What the figures mean: benchmarks/README.md. It needs root and Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
from _cluster import can_make_cluster
from _machine import machine, machine_text
from _results import Json, write_results
from scipy.sparse import csr_array

from sparsecomm.apps.gnn.dataset import Dataset, make_dataset
from sparsecomm.apps.gnn.settings import operator_of
from sparsecomm.apps.gnn.shards import save_graph
from sparsecomm.io.matrix import read_matrix
from sparsecomm.launch.world import env_size
from sparsecomm.partition.registry import partition_matrix
from sparsecomm.partition.request import Request
from sparsecomm.topology import Topology

CLUSTER: Final = "gnn-peers"
CLASSES: Final = 16


def main() -> int:
    args = _arguments()
    if env_size(os.environ) is not None:
        from _gnn_peers_job import run

        run(args)
        return 0
    if not can_make_cluster():
        return 0
    with tempfile.TemporaryDirectory(prefix="sparsecomm-bench-") as scratch:
        graph, results = Path(scratch) / "graph", Path(scratch) / "results.json"
        cut(args, Topology.parse(f"uniform:{args.nodes}x{args.ranks_per_node}"), graph)
        _on_cluster(args, [*sys.argv[1:], "--results", str(results), "--cut", str(graph)])
        found = json.loads(results.read_text())
    found["machine"] = machine() | found.pop("facts")
    _report(args, found)
    write_results(args.json, found)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything measured to FILE")
    parser.add_argument("--graph", default="rmat:18", help="a matrix file or a generator (rmat:18)")
    parser.add_argument("--features", type=int, default=128, help="of a node (128)")
    parser.add_argument("--hidden", type=int, default=64, help="columns of the hidden layer (64)")
    parser.add_argument("--partition", default="block", help="of the nodes (block)")
    parser.add_argument("--nodes", type=int, default=4, help="of the cluster (4)")
    parser.add_argument("--ranks-per-node", type=int, default=2, help="of each node (2)")
    parser.add_argument("--bandwidth", default="1gbit", help="of each link, each way (1gbit)")
    parser.add_argument("--rounds", type=int, default=5, help="steps of each, in turn (5)")
    parser.add_argument("--results", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--cut", help=argparse.SUPPRESS)
    return parser.parse_args()


def cut(args: argparse.Namespace, topology: Topology, path: Path) -> None:
    """Write the graph, with drawn features and labels, in one part per rank."""
    dataset = drawn(args.graph, args.features)
    operator = operator_of("gcn", dataset.adjacency, np.float32)
    layouts = partition_matrix(operator, topology, args.partition, Request())
    save_graph(path, dataset, layouts, topology, args.partition)


def drawn(graph: str, num_features: int) -> Dataset:
    """Return a graph whose nodes have drawn features and labels, a tenth of them to train."""
    matrix = read_matrix(graph)
    size, rng = matrix.shape[0], np.random.default_rng(0)
    rows = np.repeat(np.arange(size), np.diff(matrix.indptr))
    features = csr_array(rng.standard_normal((size, num_features), dtype=np.float32))
    part = rng.integers(0, 10, size)[None]
    masks = (part == 0, part == 1, part > 1)
    labels = rng.integers(0, CLASSES, size)
    return make_dataset(graph, (rows, matrix.indices.astype(np.int64)), features, labels, masks, counts=False)


def _on_cluster(args: argparse.Namespace, arguments: list[str]) -> None:
    def cluster(*words: str) -> None:
        command = [sys.executable, "-m", "sparsecomm", "cluster", words[0], "--name", CLUSTER, *words[1:]]
        subprocess.run(command, check=True, stdout=sys.stderr)

    size = ("--nodes", str(args.nodes), "--ranks-per-node", str(args.ranks_per_node))
    cluster("up", *size, "--bandwidth", args.bandwidth)
    try:
        cluster("run", "--", sys.executable, __file__, *arguments)
    finally:
        cluster("down")


def _report(args: argparse.Namespace, found: Json) -> None:
    print(machine_text(found["machine"]))
    print(
        f"\n{args.graph}, {found['edges']:,} edges, {args.features} features, hidden {args.hidden}, {CLASSES} classes;"
    )
    print(f"{args.nodes} nodes of {args.ranks_per_node} ranks, {args.bandwidth} links, partition {args.partition}")
    print("a ratio is taken within each round: median [quartiles]; above 1, ours is faster\n")
    print(f"{'':18s}{'ms a step':>12s}{'by hand / it':>22s}{'network MB a step':>20s}")
    for name, one in found["alternatives"].items():
        low, middle, high = one["faster"]
        times = f"{1e3 * one['seconds']:>12.0f}{f'{middle:.2f} [{low:.2f} {high:.2f}]':>22s}"
        print(f"{name:18s}{times}{one['network_bytes'] / 1e6:>20.1f}")
    print(f"\nauto is {found['chosen']}; losses agree to {found['difference']:.1e}")


if __name__ == "__main__":
    sys.exit(main())
