"""Three questions with published or known answers: two-way cuts, RadiX-Net, and the rows of a cover.

python benchmarks/partition_quality.py [--data FOLDER] [--ask cut radix cover]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _machine import machine, machine_text
from scipy.sparse import csr_array

from sparsecomm.io.matrix import read_matrix
from sparsecomm.layout import Layouts
from sparsecomm.partition.auto import best, portfolio
from sparsecomm.partition.child import Child
from sparsecomm.partition.metrics import Crossing, balance_json
from sparsecomm.partition.registry import partition_rows
from sparsecomm.partition.request import Request
from sparsecomm.topology import Topology

Matrix = csr_array[Any]


def ask_cut(data: Path) -> None:
    """Cut two meshes in two, at most 5 % more nonzeros in one half: every library at its best, and `auto`."""
    topology = Topology.parse("uniform:2x1")
    for name in ("copter2.graph.gz", "mdual.graph.gz"):
        matrix = read_matrix(str(data / name))
        request = Request(goal="cut", effort=3, refine=False)
        trials = [trial for trial in portfolio(matrix, topology, request) if trial.layouts is not None]
        chosen = best(trials)
        library = min(trial.value for trial in trials if trial.name in ("metis", "kaminpar", "mtkahypar-graph"))
        found = ", ".join(f"{trial.name} {trial.value:,.0f}" for trial in trials)
        ratio = f"{chosen.value / library:.4f} x the best library"
        print(f"cut {name}: auto {chosen.value:,.0f} ({chosen.name}) = {ratio}; {found}")


def ask_radix(data: Path) -> None:
    """Find the residue classes of RadiX-Net without being told of them: one layer, then ten with one layout."""
    topology, matrix = Topology.parse("summit:2"), read_matrix("radixnet:16384:0")
    for method in ("twins", "metis", "auto"):
        rows = _direct_rows(matrix, partition_rows(matrix, topology, method), topology)
        print(f"radixnet:16384:0 summit:2 {method}: {rows:,} direct network rows")
    topology = Topology.parse("summit:8")
    layers = [read_matrix(f"radixnet:16384:{layer}") for layer in range(10)]
    joint = csr_array(sum(layers[1:], layers[0]))
    for method in ("twins", "metis", "rcm"):
        layouts = partition_rows(joint, topology, method)
        rows = sum(_direct_rows(layer, layouts, topology) for layer in layers)
        once = sum(_crossing(layer, layouts, topology).traffic("gather", 8).rows for layer in layers)
        balance = balance_json(joint, layouts, topology, Request())
        print(
            f"ten layers summit:8 {method}: {rows:,} direct network rows, {once:,} entering nodes, {balance['nnz']:.3f}"
        )


def ask_cover(data: Path) -> None:
    """Rows of the cover at eight nodes of six, balanced in nonzeros."""
    topology = Topology.parse("summit:8")
    for name in ("ego-twitter.npz", "soc-slashdot0902.npz"):
        matrix = read_matrix(str(data / name))
        for goal in ("time", "network"):
            layouts = partition_rows(matrix, topology, "auto", goal=goal)
            rows = _crossing(matrix, layouts, topology).traffic("cover", 8).rows
            balance = balance_json(matrix, layouts, topology, Request())
            print(f"{name} auto ({goal}): cover {rows:,}, nodes {balance['node_nnz']:.3f}, ranks {balance['nnz']:.3f}")


def _crossing(matrix: Matrix, layouts: Layouts, topology: Topology) -> Crossing:
    return Crossing.of(matrix, layouts).between(topology.rank_to_node)


def _direct_rows(matrix: Matrix, layouts: Layouts, topology: Topology) -> int:
    """Return the rows over the network if every rank fetches for itself."""
    crossing = Crossing.of(matrix, layouts)
    node = topology.rank_to_node
    away = node[crossing.row_rank] != node[crossing.col_rank]
    pairs = set(zip(crossing.row_rank[away].tolist(), crossing.col[away].tolist(), strict=True))
    return len(pairs)


QUESTIONS: dict[str, Callable[[Path], None]] = {"cut": ask_cut, "radix": ask_radix, "cover": ask_cover}


def main() -> int:
    """Ask and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/matrices"), help="folder of real matrices")
    parser.add_argument("--ask", nargs="*", choices=QUESTIONS, default=list(QUESTIONS))
    args = parser.parse_args()
    print(machine_text(machine()))
    with Child.kept():
        for question in args.ask:
            QUESTIONS[question](args.data)
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
