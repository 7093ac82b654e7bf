"""An epoch of full-batch training, by `sparsecomm gnn` and by PyTorch Geometric, side by side.

    python benchmarks/gnn.py [--json FILE] [--cases "gcn cora" ...] [--rounds 3] [--epochs 40] [--limit SECONDS]

What the figures mean: benchmarks/README.md. It needs torch-geometric.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np
from _machine import machine, machine_text
from _results import Json, read_results, write_results

DATA: Final = Path(__file__).resolve().parents[2] / "shared" / "data" / "gnn"
# Data and settings other than those of the papers.
CASES: Final[dict[str, tuple[str, Json]]] = {
    "gcn cora": ("planetoid/cora", {}),
    "gcn citeseer": ("planetoid/citeseer", {}),
    "gcn pubmed": ("planetoid/pubmed", {}),
    "gat cora": ("planetoid/cora", {}),
    "gcn amazon_photo": ("amazon_photo.npz", {}),
    "gcn coauthor_cs": ("coauthor_cs.npz", {}),
    "sage tolokers": ("tolokers.npz", {"hidden": 32}),
}
OURS: Final = ("1 rank", "2 ranks")
# The graph as a matrix or as a list of edges, the features dense or sparse.
PYG: Final[dict[str, dict[str, bool]]] = {
    "edges sparse": {"matrix": False, "dense": False},
    "matrix sparse": {"matrix": True, "dense": False},
    "edges dense": {"matrix": False, "dense": True},
    "matrix dense": {"matrix": True, "dense": True},
}
# Attention needs the edges, and GraphSAGE dense features.
CANNOT: Final = {"gat": "matrix", "sage": "sparse"}
THREADS: Final = 2


def main() -> int:
    args = _arguments()
    if args.child:
        return _child(*args.child, args.epochs)
    if find_spec("torch_geometric") is None:
        print("torch-geometric is not installed: nothing was measured", file=sys.stderr)
        return 0
    results: Json = read_results(args.json, {"cases": {}})
    begun = time.monotonic()
    for name in args.cases:
        rounds = results["cases"].setdefault(name, [])
        while len(rounds) < args.rounds and time.monotonic() - begun < args.limit:
            rounds.append(dict(_round(name, args.epochs, args.pyg)))
            print(f"{name}: {rounds[-1]}", file=sys.stderr, flush=True)
            results["machine"] = machine() | {"torch": version("torch"), "PyG": version("torch-geometric")}
            write_results(args.json, results)
    _report(results)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep every round, and go on where it ends")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--rounds", type=int, default=3, help="times that all run in turn (3)")
    parser.add_argument(
        "--epochs", type=int, default=40, help="of each run, of whose second half the median counts (40)"
    )
    parser.add_argument(
        "--pyg", nargs="+", choices=PYG, default=list(PYG), metavar="NAME", help=f"of PyG: {', '.join(PYG)} (all)"
    )
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds after which no round is begun")
    parser.add_argument("--child", nargs=2, metavar=("CASE", "NAME"), help=argparse.SUPPRESS)
    return parser.parse_args()


def _round(case: str, epochs: int, others: list[str]) -> Iterator[tuple[str, float]]:
    """Run every alternative in a process of its own and yield its seconds a step."""
    for number, name in enumerate(OURS, start=1):
        yield name, _ours(case, number, epochs)
    for name in others:
        if CANNOT.get(case.split()[0], "none") not in name:
            command = [sys.executable, "-W", "ignore", __file__, "--child", case, name, "--epochs", str(epochs)]
            yield name, float(_run(command, THREADS))


def _ours(case: str, ranks: int, epochs: int) -> float:
    file, changes = CASES[case]
    command = [sys.executable, "-m", "sparsecomm", "gnn", str(DATA / file), "--model", case.split()[0], "--json"]
    command += ["-n", str(ranks), "--epochs", str(epochs), "--patience", "0"]
    command += [word for key, value in changes.items() for word in (f"--{key}", str(value))]
    report = json.loads(_run(command, THREADS // ranks))
    return _typical([epoch["seconds"] for epoch in report["epochs"]])


def _run(command: list[str], threads: int) -> str:
    environ = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    return subprocess.run(command, env=environ, check=True, stdout=subprocess.PIPE, text=True).stdout


def _typical(times: list[float]) -> float:
    """Return the median of the second half: by then everything is compiled and cached."""
    return float(np.median(times[len(times) // 2 :]))


def _child(case: str, name: str, epochs: int) -> int:
    from _pyg import PygRun

    from sparsecomm.apps.gnn.read import read_dataset
    from sparsecomm.apps.gnn.settings import settings_of

    file, changes = CASES[case]
    settings = settings_of(case.split()[0], **changes)
    run, times = PygRun(read_dataset(str(DATA / file)), settings, **PYG[name]), []
    for _ in range(epochs):
        begin = time.perf_counter()
        run.step()
        times.append(time.perf_counter() - begin)
    print(_typical(times))
    return 0


def _report(results: Json) -> None:
    complete = {name: rounds for name, rounds in results["cases"].items() if rounds}
    if not complete:
        return
    print(machine_text(results["machine"]))
    print("\nms of a training step; PyG with the graph as edges or as a matrix, features sparse or dense; ratios are")
    print("to the fastest of these in the same round: median [least, largest]")
    names = (*OURS, *PYG)
    print(f"{'':18s}" + "".join(f"{name:>15s}" for name in names) + "".join(f"{f'PyG / {o}':>22s}" for o in OURS))
    for case, rounds in complete.items():
        times = "".join(f"{_ms(rounds, name):>15s}" for name in names)
        print(f"{case:18s}" + times + "".join(f"{_ratio(rounds, name):>22s}" for name in OURS))


def _ms(rounds: list[Json], name: str) -> str:
    times = [one[name] for one in rounds if name in one]
    return f"{1e3 * np.median(times):.2f}" if times else ""


def _ratio(rounds: list[Json], name: str) -> str:
    ratios = [min(one[pyg] for pyg in PYG if pyg in one) / one[name] for one in rounds]
    return f"{np.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"


if __name__ == "__main__":
    sys.exit(main())
