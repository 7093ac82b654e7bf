"""A @ X by `DistMatrix` and as a user would write it by hand with mpi4py, side by side in one job of 4 ranks.

    python benchmarks/spmm.py [--json FILE] [--matrices rmat:16,grid2d:512] [--partitions block] [--widths 1,64]

What the figures mean: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from _machine import machine, machine_text
from _results import words

from sparsecomm.apps.source import load_source, save_source
from sparsecomm.launch.start import ENVIRONMENT, find_mpiexec
from sparsecomm.launch.world import env_size
from sparsecomm.topology import Topology

Json = dict[str, Any]

GENERATED: Final = ("rmat:16", "grid2d:512", "er:65536:16")
# Real matrices, measured where they lie beside the checkout.
REAL: Final = ("ego-twitter.npz", "xenon1.mtx.gz", "cnr-2000.npz")
DATA: Final = Path(__file__).resolve().parents[2] / "shared" / "data" / "matrices"


def main() -> int:
    args = _arguments()
    if env_size(os.environ) is not None:
        return _in_job(args)
    with tempfile.TemporaryDirectory(prefix="sparsecomm-bench-") as scratch:
        folders = _partition_all(args, Path(scratch))
        command = [find_mpiexec(), "-n", str(args.ranks), sys.executable, __file__, *sys.argv[1:]]
        return subprocess.call([*command, "--folders", *folders], env={**ENVIRONMENT, **os.environ})


def _arguments() -> argparse.Namespace:
    def numbers(text: str) -> list[int]:
        return [int(word) for word in words(text)]

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything measured to FILE")
    parser.add_argument("--matrices", type=words, default=_default_matrices(), help="files or generators, by commas")
    parser.add_argument("--partitions", type=words, default=_default_partitions(), help="methods, by commas")
    parser.add_argument("--widths", type=numbers, default=[1, 16, 64], help="columns of X, by commas (1,16,64)")
    parser.add_argument("--ranks", type=int, default=4, help="how many to start (4)")
    parser.add_argument("-t", "--topology", default="uniform:2x2", help="what to plan for (uniform:2x2)")
    parser.add_argument("--seconds", type=float, default=2.0, help="spent on the repetitions of one line (2)")
    parser.add_argument("--folders", nargs="*", default=[], help=argparse.SUPPRESS)
    return parser.parse_args()


def _default_matrices() -> list[str]:
    return [*GENERATED, *(str(DATA / name) for name in REAL if (DATA / name).exists())]


def _default_partitions() -> list[str]:
    return ["block", "metis"] if find_spec("pymetis") else ["block"]


def _partition_all(args: argparse.Namespace, scratch: Path) -> list[str]:
    """Write one partition directory for each matrix and method: partitioners need not run inside MPI."""
    topology, folders = Topology.parse(args.topology), []
    for spec in args.matrices:
        for method in args.partitions:
            print(f"partitioning {_short(spec)} by {method}", file=sys.stderr)
            folders.append(str(scratch / f"{len(folders):03d}"))
            save_source(Path(folders[-1]), load_source(spec, topology, method=method), topology)
    return folders


def _short(spec: str) -> str:
    return Path(spec).name.split(".")[0]


def _in_job(args: argparse.Namespace) -> int:
    from _spmm_job import measure, mpi_library

    from sparsecomm.collectives.transport.mpi import MpiTransport

    with MpiTransport() as transport:
        topology = Topology.parse(args.topology)
        facts = machine() | {"mpi": mpi_library(), "ranks": str(args.ranks), "topology": topology.name}
        facts["command"] = facts["command"].split(" --folders")[0]
        cases = []
        for case in measure(args.folders, args.widths, topology, args.seconds, transport):
            cases.append(case)
            if transport.rank == 0:
                print(f"measured {_short(case['matrix'])} {case['partition']} {case['width']}", file=sys.stderr)
        if transport.rank == 0:
            _report({"machine": facts, "cases": cases}, args.json)
    return 0


def _report(results: Json, path: Path | None) -> None:
    cases = results["cases"]
    print(machine_text(results["machine"]))
    print("\nTime of ours / time of Alltoallv by hand: median of the repetitions [quartiles]; * is what auto chooses")
    _print_ratios(cases, "alltoallv", ("direct", "shared", "hierarchical", "reduce", "allgatherv"))
    print("\nTime of ours / time of Allgatherv by hand")
    _print_ratios(cases, "allgatherv", ("direct", "shared", "hierarchical", "reduce"))
    print("\nRows of X, or partial rows of Y, that one product moves between ranks (of these between nodes)")
    _print_rows(cases)
    print(f"\nlargest error of any alternative, relative to |A||X|: {max(case['max_error'] for case in cases):.1e}")
    if path is not None:
        path.write_text(json.dumps(results, indent=1) + "\n")


def _print_ratios(cases: Sequence[Json], hand: str, names: Sequence[str]) -> None:
    print(_head() + f" {'reps':>5} {hand + ' ms':>14}" + "".join(f"{name:>22}" for name in names))
    for case in cases:
        line = f"{_name(case)} {case['repeats']:5d} {1e3 * case['seconds'][hand][1]:14.2f}"
        for name in names:
            low, middle, high = case["ratio"][name][hand]
            mark = "*" if name == case["chosen"] else " "
            line += f"{middle:8.2f} [{low:.2f} {high:.2f}]{mark}".rjust(22)
        print(line)


def _print_rows(cases: Sequence[Json]) -> None:
    names = list(cases[0]["rows"])
    print(_head() + "".join(f"{name:>22}" for name in names))
    for case in cases:
        if case["width"] == cases[0]["width"]:
            cells = (f"{rows['all']:,} ({rows['network']:,})" for rows in (case["rows"][name] for name in names))
            print(_name(case) + "".join(f"{cell:>22}" for cell in cells))


def _head() -> str:
    return f"{'matrix':14s} {'part':5s} {'k':>3s}"


def _name(case: Json) -> str:
    return f"{_short(case['matrix']):14s} {case['partition']:5s} {case['width']:3d}"


if __name__ == "__main__":
    sys.exit(main())
