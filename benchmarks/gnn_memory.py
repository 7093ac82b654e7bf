"""Peak memory of every rank that trains on its part of a graph directory.

    python benchmarks/gnn_memory.py [--json FILE] [--ranks 1,2,4]

What the figures mean: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from _machine import machine, machine_text
from _results import Json, write_results
from gnn_peers import drawn

from sparsecomm.apps.gnn.dataset import Dataset
from sparsecomm.apps.gnn.read import read_dataset
from sparsecomm.apps.gnn.settings import operator_of
from sparsecomm.apps.gnn.shards import load_adjacency, load_graph_header, load_graph_layouts, save_graph
from sparsecomm.partition.registry import partition_matrix
from sparsecomm.partition.request import Request
from sparsecomm.topology import Topology

PUBMED: Final = Path(__file__).resolve().parents[2] / "shared" / "data" / "gnn" / "planetoid" / "pubmed"
FEATURES: Final = 128  # of the generated graph
HIDDEN: Final = 64
METHOD: Final = "metis"


def main() -> int:
    args = _arguments()
    cases = []
    for name in args.graphs:
        if name == "pubmed" and not PUBMED.with_name("ind.pubmed.graph").exists():
            print("pubmed is not there: left out", file=sys.stderr)
            continue
        dataset = read_dataset(str(PUBMED)) if name == "pubmed" else drawn(name, FEATURES)
        cases += [_measure(name, dataset, ranks, args.partition) for ranks in args.ranks]
    facts = machine()
    write_results(args.json, {"machine": facts, "cases": cases})
    print(machine_text(facts))
    print(f"\nGCN, 3 epochs, partition {args.partition}; MB of every rank")
    heads = ("own", "ghosts", "nonzeros", "before", "peak", "more")
    print(
        f"{'':10s}{'ranks':>6s}{'rank':>6s}" + "".join(f"{head:>{12 if head == 'nonzeros' else 9}s}" for head in heads)
    )
    for case in cases:
        for line in _lines(case):
            print(line)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything measured to FILE")
    parser.add_argument("--graphs", nargs="+", default=["pubmed", "rmat:18"], help="pubmed, or a generator")
    parser.add_argument("--ranks", type=lambda text: [int(word) for word in text.split(",")], default=[1, 2, 4])
    parser.add_argument("--partition", default=METHOD, help=f"of the nodes ({METHOD})")
    return parser.parse_args()


def _measure(name: str, dataset: Dataset, ranks: int, method: str) -> Json:
    print(f"{name} on {ranks} ranks", file=sys.stderr)
    topology = Topology.parse(f"uniform:1x{ranks}")
    layouts = partition_matrix(operator_of("gcn", dataset.adjacency, np.float32), topology, method, Request(cache=True))
    with tempfile.TemporaryDirectory(prefix="sparsecomm-bench-") as scratch:
        path = Path(scratch) / "graph"
        save_graph(path, dataset, layouts, topology, method)
        sizes = list(_sizes(path, ranks))
        command = [sys.executable, "-m", "sparsecomm", "gnn", str(path), "-n", str(ranks), "--json", "--epochs", "3"]
        command += [] if name == "pubmed" else ["--hidden", str(HIDDEN), "--dropout", "0"]
        environ = {**os.environ, "OMP_NUM_THREADS": "1"}
        found = subprocess.run(command, env=environ, check=True, stdout=subprocess.PIPE, text=True).stdout
    report = json.loads(found)
    memory = {key: report[key] for key in ("memory_before_bytes", "peak_memory_bytes")}
    return {"graph": name, "ranks": ranks, "sizes": sizes, **memory}


def _sizes(path: Path, ranks: int) -> Iterator[tuple[int, int, int]]:
    """Yield own nodes, ghosts and nonzeros of every rank."""
    layouts = load_graph_layouts(path, load_graph_header(path, ranks)[0])
    for rank in range(ranks):
        rows, own = load_adjacency(path, layouts, rank)[0], layouts.rows.own_rows(rank)
        cols = np.unique(rows.indices)
        yield len(own), int(((cols < own.start) | (cols >= own.stop)).sum()), rows.nnz


def _lines(case: Json) -> Iterator[str]:
    memory = zip(case["memory_before_bytes"], case["peak_memory_bytes"], strict=True)
    for rank, ((own, ghosts, nnz), (before, peak)) in enumerate(zip(case["sizes"], memory, strict=True)):
        sizes = f"{case['graph']:10s}{case['ranks']:>6d}{rank:>6d}{own:>9,}{ghosts:>9,}{nnz:>12,}"
        yield sizes + "".join(f"{part / 1e6:>9,.0f}" for part in (before, peak, peak - before))


if __name__ == "__main__":
    sys.exit(main())
