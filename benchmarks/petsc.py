"""Ours beside PETSc, each with its own MPI, in turns on one virtual cluster with slow links; needs root and Linux.

    python benchmarks/petsc.py [--json FILE] [--matrices ego-twitter.npz,...] [--what move|multiply]

PETSc is Debian's python3-petsc4py, run by the system's Python and its Open MPI; where it is missing, that is said, and
it is left out. What the figures mean: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from glob import glob
from pathlib import Path
from typing import Any, Final

import numpy as np
from _cluster import COMMAND, LIMIT_S, can_make_cluster, cluster
from _machine import machine, machine_text
from _results import Json, words, write_results
from _turns import WARM_UPS, alone, stop
from peers import DATA, REAL

from sparsecomm.apps.source import load_source, save_source
from sparsecomm.launch.cluster.agent import agent_path
from sparsecomm.launch.cluster.names import SUBNET, Cluster, parse_bandwidth
from sparsecomm.launch.cluster.state import State
from sparsecomm.launch.world import env_size
from sparsecomm.topology import Topology

NAME: Final = "petsc"
JOB: Final = Path(__file__).parent / "_petsc_job.py"
SYSTEM: Final = "/usr/bin/python3"
PACKAGES: Final = "/usr/lib/petscdir/*/*/lib/python3/dist-packages"  # where Debian keeps petsc4py, one for each PETSc
LAUNCHER: Final = "mpirun.openmpi"
DTYPES: Final = {"move": np.float32, "multiply": np.float64}


def main() -> int:
    args = _arguments()
    if env_size(os.environ) is not None:
        from _petsc_ours import run

        run(args)
        return 0
    if not can_make_cluster():
        return 0
    missing = _missing()
    with tempfile.TemporaryDirectory(prefix="sparsecomm-bench-") as scratch:
        cases: list[Json] = []
        for number, spec in enumerate(args.matrices):
            case = _measure(args, spec, Path(scratch) / f"{number:03d}", missing)
            facts = machine() | case.pop("facts") | ({"left out": f"PETSc: {missing}"} if missing else {})
            if not cases:
                _report_setting(args, facts)
            _report(case)
            cases.append(case)
            write_results(args.json, {"machine": facts, "cases": cases})
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything measured to FILE")
    parser.add_argument("--matrices", type=words, default=[str(DATA / name) for name in REAL], help="by commas")
    parser.add_argument("--width", type=int, default=64, help="columns of X (64)")
    parser.add_argument("--nodes", type=int, default=4, help="of the cluster (4)")
    parser.add_argument("--ranks-per-node", type=int, default=2, help="of each node (2)")
    parser.add_argument("--bandwidth", default="1gbit", help="of each link, each way (1gbit)")
    parser.add_argument("--what", choices=list(DTYPES), default="move", help="rows alone, or the product (move)")
    parser.add_argument("--rounds", type=int, default=10, help="paired repetitions (10)")
    parser.add_argument("--ours", type=words, default=["direct", "cover"], help="by commas (direct,cover)")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _missing() -> str:
    """Return why PETSc cannot be run; empty where it can."""
    if shutil.which(LAUNCHER) is None:
        return f"no {LAUNCHER}"
    command = [*_system(), "-c", "import mpi4py, petsc4py"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stderr.strip().splitlines()[-1] if found.returncode else ""


def _system() -> list[str]:
    """Return the command that starts the system's Python where it finds petsc4py."""
    return ["env", f"PYTHONPATH={os.pathsep.join(sorted(glob(PACKAGES)))}", SYSTEM]


def _measure(args: argparse.Namespace, spec: str, folder: Path, missing: str) -> Json:
    """Measure one matrix in a cluster of its own."""
    topology = Topology.parse(f"uniform:{args.nodes}x{args.ranks_per_node}")
    (folder / "turns").mkdir(parents=True)
    _write_data(spec, topology, folder, args)
    with cluster(NAME, args.nodes, args.ranks_per_node, args.bandwidth) as run:
        theirs = None if missing else _start_petsc(args, folder)
        try:
            if missing:
                alone(folder / "turns", WARM_UPS + args.rounds)
            hidden = ["--folder", str(folder), *(["--ours", ",".join(args.ours)])]
            run(sys.executable, __file__, *sys.argv[1:], *hidden)
        finally:
            stop(folder / "turns")
            if theirs is not None:
                theirs.wait(20)
    ours = json.loads((folder / "ours.json").read_text())
    petsc = None if missing else json.loads((folder / "petsc.json").read_text())
    return _joined(Path(spec).name, ours, petsc)


def _write_data(spec: str, topology: Topology, folder: Path, args: argparse.Namespace) -> None:
    """Write what both jobs read: a partition directory for ours, whole arrays for PETSc, and one X for both."""
    source = load_source(spec, topology, method="block", dtype=DTYPES[args.what])
    save_source(folder / "ours", source, topology)
    x = np.random.default_rng(0).standard_normal((source.matrix.shape[1], args.width))
    arrays = {
        "offsets": source.layouts.rows.offsets,
        "indptr": source.matrix.indptr.astype(np.int64),
        "indices": source.matrix.indices.astype(np.int64),
        "data": source.matrix.data,
        "x": x.astype(DTYPES[args.what]),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)


def _start_petsc(args: argparse.Namespace, folder: Path) -> subprocess.Popen[bytes]:
    """Start the ranks of PETSc on all nodes, from the head."""
    sizes = (args.ranks_per_node,) * args.nodes
    made = Cluster(NAME, sizes, parse_bandwidth(args.bandwidth), slurm=False)
    hosts = ",".join(f"{node.address}:{node.num_ranks}" for node in made.nodes)
    layers = {
        "plm": "rsh",
        "plm_rsh_agent": str(agent_path(State(made, "", ""))),
        "oob_tcp_if_include": SUBNET,
        "btl": "self,vader,tcp",
        "btl_tcp_if_include": SUBNET,
        "pml": "ob1",
        "btl_vader_single_copy_mechanism": "none",  # which needs rights that a namespace may lack
    }
    options = [word for name, value in layers.items() for word in ("--mca", name, value)]
    start = [LAUNCHER, "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", *options, "--host", hosts]
    ranks = ["-n", str(made.num_ranks), *_system(), str(JOB), str(folder), args.what, str(args.rounds)]
    head = [*COMMAND, "cluster", "run", "--name", NAME, "--timeout", str(LIMIT_S), "--on", "head", "--"]
    return subprocess.Popen([*head, *start, *ranks], stdout=sys.stderr)


def _joined(name: str, ours: Json, petsc: Json | None) -> Json:
    """Return the report of a matrix.

    Raises:
        AssertionError: the norms of what came out differ.
    """
    seconds = ours["seconds"]
    if petsc is not None:
        for way, norm in ours["norms"].items():
            assert abs(norm / petsc["norm"] - 1) < 1e-6, f"{way} has norm {norm}, PETSc {petsc['norm']}"
        seconds = seconds | {"petsc": petsc["seconds"]}
    return {
        "matrix": name,
        "seconds": {way: _quartiles(np.array(times)) for way, times in seconds.items()},
        "faster": {
            way: {other: _quartiles(np.array(seconds[other]) / np.array(times)) for other in ("alltoallv", "petsc")}
            for way, times in seconds.items()
            if petsc is not None
        },
        "rows": ours["rows"],
        "norms": ours["norms"] | ({"petsc": petsc["norm"]} if petsc else {}),
        "facts": ours["facts"] | (petsc["facts"] if petsc else {}),
    }


def _quartiles(values: Any) -> list[float]:
    return [float(value) for value in np.quantile(values, [0.25, 0.5, 0.75])]


def _report_setting(args: argparse.Namespace, facts: dict[str, str]) -> None:
    act = "PetscSF, a row as its unit" if args.what == "move" else "MatMatMult into a result that is kept"
    print(machine_text(facts))
    print(f"\n{args.nodes} nodes of {args.ranks_per_node} ranks, {args.bandwidth} links, width {args.width}", end=" ")
    print(f"{np.dtype(DTYPES[args.what]).name}, block partition\npetsc: {act}")
    print("a ratio is taken within each round; median [quartiles]; rows into or out of the busiest node", flush=True)


def _report(case: Json) -> None:
    print(f"\n{case['matrix']}")
    print(f"  {'':12s}{'ms':>10s}{'alltoallv / it':>22s}{'petsc / it':>22s}{'busiest':>10s}")
    for way, (_, middle, _) in case["seconds"].items():
        ratios = case["faster"].get(way, {})
        cells = [f"{m:.2f} [{low:.2f} {high:.2f}]" for low, m, high in ratios.values()] or ["", ""]
        busiest = f"{case['rows'][way]:,}" if way in case["rows"] else ""
        print(f"  {way:12s}{1e3 * middle:10.2f}" + "".join(f"{c:>22s}" for c in cells) + f"{busiest:>10s}")
    print("  norms: " + ", ".join(f"{way} {norm:.9e}" for way, norm in case["norms"].items()), flush=True)


if __name__ == "__main__":
    sys.exit(main())
