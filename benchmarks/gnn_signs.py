"""Lion with votes on signs, one bit a weight, beside plain Lion on the sums of the gradients: accuracy on PubMed.

    python benchmarks/gnn_signs.py [--json FILE] [--seeds 5] [--limit SECONDS]

Runs are kept in FILE as they end: a run that was stopped goes on where FILE ends. What the figures mean:
benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Final

import numpy as np
from _machine import machine, machine_text
from _results import Json, read_results, write_results

from sparsecomm.apps.gnn.job import GnnOptions, run_gnn
from sparsecomm.apps.gnn.settings import settings_of
from sparsecomm.collectives.transport.local import run_local
from sparsecomm.topology import Topology

DATA: Final = Path(__file__).resolve().parents[2] / "shared" / "data" / "gnn" / "planetoid" / "pubmed"
RANKS: Final = {"lion": 1, "votes of 1": 1, "votes of 2": 2, "votes of 4": 4}
# Plain Lion's lowest validation loss with seed 0 among rates 0.0003 to 0.02 and decays 0.0005 to 5.
CHANGES: Final = {"learning_rate": 0.01, "weight_decay": 2.0}


def main() -> int:
    args = _arguments()
    results: Json = read_results(args.json, {"runs": {}})
    begun = time.monotonic()
    for seed in range(args.seeds):
        for name, ranks in RANKS.items():
            runs = results["runs"].setdefault(name, [])
            if len(runs) > seed or time.monotonic() - begun > args.limit:
                continue
            runs.append(_run(name, ranks, seed))
            print(f"{name}, seed {seed}: {runs[-1]}", file=sys.stderr, flush=True)
            results["machine"] = machine()
            write_results(args.json, results)
    _report(results)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep every run, and go on where it ends")
    parser.add_argument("--seeds", type=int, default=5, help="of each (5)")
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds after which no run is begun")
    return parser.parse_args()


def _run(name: str, ranks: int, seed: int) -> Json:
    """Train over ranks that are threads of this process."""
    settings = settings_of("gcn", seed=seed, optimiser="lion" if name == "lion" else "sign-lion", **CHANGES)
    options = GnnOptions(str(DATA), settings, strategy="hierarchical")
    topology = Topology.parse("nodes:" + ",".join(["1"] * ranks))
    report = run_local(ranks, lambda transport: run_gnn(options, topology, transport), deadline_s=300)[0]
    return {"test": 100 * report["best"]["test"], "epoch": report["best_epoch"], "loss": report["epochs"][-1]["loss"]}


def _report(results: Json) -> None:
    if not results["runs"]:
        return
    print(machine_text(results["machine"]))
    print(f"\nGCN on PubMed, {CHANGES}, test accuracy after the epoch of the lowest validation loss, over seeds\n")
    heads = f"{'mean':>8s}{'deviation':>11s}{'lowest':>8s}{'highest':>9s}"
    print(f"{'':14s}{'seeds':>6s}{heads}{'best epoch':>12s}{'loss':>8s}")
    for name, runs in results["runs"].items():
        test = np.array([run["test"] for run in runs])
        epoch, loss = (np.mean([run[key] for run in runs]) for key in ("epoch", "loss"))
        spread = f"{test.mean():>8.2f}{test.std():>11.2f}{test.min():>8.1f}{test.max():>9.1f}"
        print(f"{name:14s}{test.size:>6d}{spread}{epoch:>12.0f}{loss:>8.3f}")


if __name__ == "__main__":
    sys.exit(main())
