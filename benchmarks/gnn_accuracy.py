"""Accuracy of graph networks over ten seeds, against what papers say and what PyTorch Geometric reaches.

    python benchmarks/gnn_accuracy.py [--json FILE] [--cases "gcn cora" ...] [--limit SECONDS]

Runs are kept in FILE as they end: a run that was stopped goes on where FILE ends. What the figures mean:
benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np
from _machine import machine, machine_text
from _results import Json, read_results, write_results

from sparsecomm.apps.gnn.job import GnnOptions, run_gnn
from sparsecomm.apps.gnn.read import read_dataset
from sparsecomm.apps.gnn.score import accuracy, roc_auc
from sparsecomm.apps.gnn.settings import Settings, settings_of
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.collectives.transport.local import run_local
from sparsecomm.topology import Topology

DATA: Final = Path(__file__).resolve().parents[2] / "shared" / "data" / "gnn"
RUNS: Final = 10
WITHIN: Final = 1.0


@dataclass(frozen=True, slots=True)
class Case:
    """What to train on and what to reach.

    Args:
        file: below the folder of the data.
        model: see `sparsecomm gnn`.
        published: accuracy of the paper in percent; None is to reach what PyTorch Geometric does.
        splits: whether run i takes the masks i of the file.
        dense: whether PyTorch Geometric gets dense features, which is a question of time alone.
        changes: of the settings of the model.
    """

    file: str
    model: str
    published: float | None = None
    splits: bool = False
    dense: bool = False
    changes: Json = field(default_factory=dict)


# Kipf and Welling 2017, table 2; Velickovic et al. 2018, table 2.
CASES: Final = {
    "gcn cora": Case("planetoid/cora", "gcn", 81.5),
    "gcn citeseer": Case("planetoid/citeseer", "gcn", 70.3),
    "gcn pubmed": Case("planetoid/pubmed", "gcn", 79.0),
    "gat cora": Case("planetoid/cora", "gat", 83.0),
    "gcn amazon_photo": Case("amazon_photo.npz", "gcn", dense=True),
    "gcn coauthor_cs": Case("coauthor_cs.npz", "gcn"),
    "sage tolokers": Case("tolokers.npz", "sage", splits=True, dense=True, changes={"hidden": 32, "epochs": 100}),
}


def main() -> int:
    args = _arguments()
    results: Json = read_results(args.json, {})
    begun = time.monotonic()
    for name in args.cases:
        for side, run in _sides(CASES[name]).items():
            found = results.setdefault(name, {}).setdefault(side, [])
            while len(found) < (args.runs if side == "ours" else args.others) and time.monotonic() - begun < args.limit:
                found.append(run(CASES[name], len(found)))
                results[name]["machine"] = machine() | {"PyG": _pyg_version()}
                print(f"{name}, {side}, run {len(found)}: {found[-1]}", file=sys.stderr, flush=True)
                write_results(args.json, results)
    table = "\n".join(_table(results))
    print(table)
    if args.json:
        args.json.with_suffix(".md").write_text(table + "\n")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep every run, go on where it ends; and FILE.md")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--runs", type=int, default=RUNS, help=f"of each ({RUNS})")
    parser.add_argument("--others", type=int, default=RUNS, help=f"of each of PyTorch Geometric ({RUNS})")
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds after which no run is begun")
    return parser.parse_args()


def _sides(case: Case) -> dict[str, Callable[[Case, int], Json]]:
    if case.published is not None:
        return {"ours": _ours}
    if find_spec("torch_geometric") is None:
        print(f"{case.file} needs torch-geometric to compare with: left out", file=sys.stderr)
        return {}
    without = {"pyg without bias": partial(_pyg, bias=False)} if case.model == "gcn" else {}
    return {"ours": _ours, **without, "pyg": _pyg}


def _ours(case: Case, number: int) -> Json:
    """Train over two ranks, threads of this process."""
    settings = settings_of(case.model, seed=number, **case.changes)
    options = GnnOptions(str(DATA / case.file), settings, strategy="hierarchical", split=number if case.splits else 0)
    report = run_local(2, lambda transport: run_gnn(options, Topology.parse("nodes:1,1"), transport), deadline_s=300)[0]
    times = [epoch["seconds"] for epoch in report["epochs"]]
    return {"test": 100 * report["best"]["test"], "epochs": len(times), "seconds": float(np.median(times))}


def _pyg(case: Case, number: int, *, bias: bool = True) -> Json:
    return run_local(1, lambda transport: _train_pyg(case, number, bias, transport))[0]


def _train_pyg(case: Case, number: int, bias: bool, transport: Transport) -> Json:
    """Train by PyTorch Geometric on the same splits, and judge by the same rule: the lowest validation loss."""
    from _pyg import PygRun

    settings = settings_of(case.model, seed=number, **case.changes)
    dataset = read_dataset(str(DATA / case.file), seed=number)
    run = PygRun(dataset, settings, number if case.splits else 0, matrix=case.splits, dense=case.dense, bias=bias)
    score = roc_auc if dataset.num_classes == 2 else accuracy
    best, at, times = (np.inf, 0.0), 0, list[float]()
    while not _over(len(times), at, settings):
        begin = time.perf_counter()
        run.step()
        times.append(time.perf_counter() - begin)
        loss, outputs = run.evaluate()
        if loss < best[0]:
            best, at = (loss, score(outputs, dataset.labels, run.masks, transport)["test"]), len(times)
    return {"test": 100 * best[1], "epochs": len(times), "seconds": float(np.median(times))}


def _over(epoch: int, best: int, settings: Settings) -> bool:
    return epoch >= settings.epochs or (settings.patience > 0 and epoch - best >= settings.patience)


def _pyg_version() -> str:
    return version("torch-geometric") if find_spec("torch_geometric") else ""


def _table(results: Json) -> list[str]:
    complete = [name for name in CASES if len(results.get(name, {}).get("ours", [])) > 0]
    if not complete:
        return ["nothing was measured"]
    return [
        "# Accuracy of graph networks",
        "",
        "Ours on 2 ranks (threads of one process), the settings of the papers where not said. `mean` is that of the",
        "accuracy, for tolokers of the ROC AUC, in percent, of the test nodes after the epoch of the lowest validation",
        "loss, over the seeds 0 to 9. Run i on tolokers takes its split i; on amazon_photo and coauthor_cs split i is",
        "drawn. PyG is torch-geometric with the same settings, seeds and splits; its GCN is also run without the bias",
        "of its layers, which those of Kipf and Welling and ours do not have, and the better one is to be reached.",
        "",
        "```text",
        machine_text(results[complete[-1]]["machine"]),
        "```",
        "",
        "| model, data | runs | to reach | mean | deviation | lowest | highest | epochs |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *(_row(name, results[name]) for name in complete),
    ]


def _row(name: str, found: Json) -> str:
    test = np.array([run["test"] for run in found["ours"]])
    epochs = np.mean([run["epochs"] for run in found["ours"]])
    return (
        f"| {name} | {len(test)} | {_goal(name, found)} ± {WITHIN} | {test.mean():.2f} | {test.std():.2f} "
        f"| {test.min():.1f} | {test.max():.1f} | {epochs:.0f} |"
    )


def _goal(name: str, found: Json) -> str:
    """Return what is to be reached: the figure of the paper, or of the better side of PyTorch Geometric."""
    published = CASES[name].published
    if published is not None:
        return f"{published:.2f}"
    means = {side: (np.mean([run["test"] for run in runs]), len(runs)) for side, runs in _others(found).items()}
    shown = [
        f"{side.replace('pyg', 'PyG')} {mean:.2f} ({runs} runs)"
        for side, (mean, runs) in sorted(means.items(), key=lambda item: item[1], reverse=True)
    ]
    return ", ".join(shown) or "PyG (not run)"


def _others(found: Json) -> dict[str, list[Json]]:
    return {side: runs for side, runs in found.items() if side.startswith("pyg") and runs}


if __name__ == "__main__":
    sys.exit(main())
