"""Seconds and memory of the fast partitioners on a large matrix, and of one that never holds it.

python benchmarks/partition_scale.py [--matrix rmat:22:16] [--topology summit:8]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _machine import machine, machine_text

from sparsecomm.io.matrix import read_matrix
from sparsecomm.partition.metrics import balance_json
from sparsecomm.partition.registry import partition_rows
from sparsecomm.partition.request import Request
from sparsecomm.topology import Topology

WRITE = """
import sys
from pathlib import Path
from sparsecomm.apps.source import load_source, save_source
from sparsecomm.topology import Topology
topology = Topology.parse(sys.argv[2])
save_source(Path(sys.argv[3]), load_source(sys.argv[1], topology, method="block"), topology)
"""
CUT = """
import resource, sys
from sparsecomm.launch.cli import main
main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
METHODS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("nnz", {}),
    ("streaming", {}),
    ("kaminpar", {"refine": False, "effort": 0}),
    ("kaminpar", {"refine": False}),
)


def peak_GiB(who: int) -> float:
    """Return the largest resident memory so far."""
    return resource.getrusage(who).ru_maxrss / 2**20


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--matrix", default="rmat:22:16")
    parser.add_argument("--topology", default="summit:8")
    args = parser.parse_args()
    topology = Topology.parse(args.topology)
    print(machine_text(machine()))
    from_disk(args.matrix, args.topology)
    begin = time.perf_counter()
    matrix = read_matrix(args.matrix)
    print(
        f"{args.matrix}: {matrix.shape[0]:,} rows, {matrix.nnz:,} nonzeros, read in {time.perf_counter() - begin:.1f} s"
    )
    for method, options in METHODS:
        begin = time.perf_counter()
        layouts = partition_rows(matrix, topology, method, **options)
        seconds, balance = time.perf_counter() - begin, balance_json(matrix, layouts, topology, Request())
        how = ", ".join(f"{name}={value}" for name, value in options.items())
        print(
            f"{method:10s} {how:24s} {seconds:7.1f} s, nonzeros of nodes {balance['node_nnz']:.3f}, of ranks "
            f"{balance['nnz']:.3f}; {peak_GiB(resource.RUSAGE_SELF):.2f} GiB here, "
            f"{peak_GiB(resource.RUSAGE_CHILDREN):.2f} GiB in processes it started",
            flush=True,
        )
    return 0


def from_disk(spec: str, machine_name: str) -> None:
    """Cut a partition directory anew by `streaming`, in a process of its own, and say what that took."""
    with tempfile.TemporaryDirectory(prefix="sparsecomm-scale-") as scratch:
        folders = str(Path(scratch, "blocks")), str(Path(scratch, "parts"))
        python(WRITE, spec, machine_name, folders[0])
        begin = time.perf_counter()
        peak = python(CUT, "partition", folders[0], "-t", machine_name, "-m", "streaming", "-o", folders[1])
        seconds = time.perf_counter() - begin
    print(
        f"{spec} from disk by streaming, read, cut and written: {seconds:.1f} s, {int(peak) / 2**20:.2f} GiB",
        flush=True,
    )


def python(code: str, *argv: str) -> str:
    """Run code in a process of its own and return the last word that it prints."""
    ran = subprocess.run([sys.executable, "-c", code, *argv], check=True, stdout=subprocess.PIPE, text=True)
    return (ran.stdout.split() or [""])[-1]


if __name__ == "__main__":
    sys.exit(main())
