"""Sparse networks by `sparsecomm sdnn`, by SuiteSparse:GraphBLAS, and by a plain loop of scipy, side by side.

    python benchmarks/sdnn.py [--json FILE] [--cases official,radixnet:4096] [--rounds 1] [--without scipy]

What the figures mean: benchmarks/README.md. GraphBLAS is measured where python-graphblas is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
from _machine import machine, machine_text
from _results import Json, words, write_results

from sparsecomm.apps.sdnn.network import CLIP
from sparsecomm.apps.sdnn.problem import Problem, SdnnOptions, open_problem

DATA: Final = Path(__file__).resolve().parents[2] / "shared" / "data" / "sparse_dnn"
TRUTH: Final = DATA / "neuron1024-l120-categories_subset.mtx"
# Name, network, layers, images (None: all of the folder).
CASES: Final = {
    "official": (str(DATA), 120, None),
    "radixnet:1024": ("radixnet:1024", 120, 60_000),
    "radixnet:4096": ("radixnet:4096", 120, 6_000),
    "radixnet:16384": ("radixnet:16384", 120, 1_000),
}
OURS: Final = ("ours 1 rank", "ours 2 ranks")
GRAPHBLAS: Final = ("GraphBLAS 1 thread", "GraphBLAS 2 threads")
PLAIN: Final = "scipy"
KINDS: Final = ("seconds", "cpu_seconds")


def main() -> int:
    args = _arguments()
    if args.child:
        return _child(args)
    names = [*OURS, *(GRAPHBLAS if find_spec("graphblas") else ()), PLAIN]
    wanted = [name for name in names if not any(name.lower().startswith(word.lower()) for word in args.without)]
    results = [_measure(case, wanted, args) for case in args.cases]
    facts = machine() | {"python-graphblas": _graphblas_version()}
    _report(facts, results)
    write_results(args.json, {"machine": facts, "cases": results})
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything measured to FILE")
    parser.add_argument("--cases", type=words, default=["official", "radixnet:4096"], help=", ".join(CASES))
    parser.add_argument("--rounds", type=int, default=1, help="times that all alternatives run in turn (1)")
    parser.add_argument("--repeat", type=int, default=5, help="runs in a process, of which the median counts (5)")
    parser.add_argument("--without", type=words, default=[], help="alternatives left out, by their first letters")
    parser.add_argument("--child", nargs=2, metavar=("CASE", "NAME"), help=argparse.SUPPRESS)
    return parser.parse_args()


def _graphblas_version() -> str:
    from importlib.metadata import version

    return (
        f"{version('python-graphblas')}, SuiteSparse {version('suitesparse-graphblas')}"
        if find_spec("graphblas")
        else ""
    )


def _measure(case: str, names: list[str], args: argparse.Namespace) -> Json:
    """Run every alternative in a process of its own, in turn, and hold their categories against each other."""
    found: dict[str, list[Json]] = {name: [] for name in names}
    for number in range(args.rounds):
        for name in names:
            print(f"{case}: {name}, round {number + 1} of {args.rounds}", file=sys.stderr)
            found[name].append(_ours(case, name, args.repeat) if name in OURS else _other(case, name, args.repeat))
    categories = {one["categories"] for runs in found.values() for one in runs}
    if len(categories) != 1:
        raise SystemExit(f"{case}: the alternatives disagree: {categories} categories")
    first = found[names[0]][0]
    times = {kind: {name: [one[kind] for one in runs] for name, runs in found.items()} for kind in KINDS}
    return {"case": case, "categories": categories.pop(), "work": first["work"], **times}


def _ours(case: str, name: str, repeat: int) -> Json:
    network, layers, images = CASES[case]
    command = [sys.executable, "-m", "sparsecomm", "sdnn", network, "--layers", str(layers), "--json"]
    command += ["--repeat", str(repeat), "-n", name.split()[1], *(["--inputs", str(images)] if images else [])]
    command += ["--truth", str(TRUTH)] if case == "official" else []
    environ = {**os.environ, "NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    report = json.loads(subprocess.run(command, env=environ, check=True, capture_output=True, text=True).stdout)
    work = report["inputs"]["count"] * report["network"]["edges"]
    times = {"seconds": report["seconds"]["median"], "cpu_seconds": report["cpu_seconds"]}
    return {**times, "categories": report["categories"], "work": work}


def _other(case: str, name: str, repeat: int) -> Json:
    command = [sys.executable, __file__, "--repeat", str(repeat), "--child", case, name]
    found: Json = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def _child(args: argparse.Namespace) -> int:
    case, name = args.child
    network, layers, images = CASES[case]
    problem = open_problem(SdnnOptions(network, layers=layers, inputs=images))
    threads = int(name.split()[1]) if name in GRAPHBLAS else 1
    run, repeat = (_graphblas(problem, threads), args.repeat) if name in GRAPHBLAS else (_scipy(problem), 1)
    times, categories = [], 0
    for _ in range(repeat):
        begin = time.perf_counter(), time.process_time()
        categories = run()
        times.append((time.perf_counter() - begin[0], time.process_time() - begin[1]))
    medians = dict(zip(KINDS, np.median(times, axis=0).tolist(), strict=True))
    print(json.dumps({**medians, "categories": categories}))
    return 0


def _scipy(problem: Problem) -> Callable[[], int]:
    """One product of scipy a layer, all images to the end; bias, ReLU and clip in place."""
    network, count = problem.network, problem.inputs.count
    matrices = [network.matrix(distinct) for distinct in range(network.num_distinct)]
    pixels = problem.inputs.pixels(np.arange(count))
    x = np.zeros((network.neurons, count), dtype=np.float32)
    x[pixels.neuron, pixels.image] = pixels.value

    def run() -> int:
        y = x
        for layer in range(network.num_layers):
            y = matrices[layer % len(matrices)] @ y
            y += np.float32(network.bias)
            np.clip(y, 0, np.float32(CLIP), out=y)
        return int((y.sum(axis=0) > 0).sum())

    return run


def _graphblas(problem: Problem, threads: int) -> Callable[[], int]:
    """Rows are images, as in the challenge: multiply, add the bias to what is there, keep what is positive, clip.

    Source: T. Davis, M. Aznaveh, S. Kolodziej, "Write quick, run fast: sparse deep neural network in 20 minutes of
    development time via SuiteSparse:GraphBLAS" (2019).
    """
    import graphblas as gb

    gb.ss.config["nthreads"] = threads
    network, count = problem.network, problem.inputs.count
    weights = [_to_graphblas(network.matrix(distinct).T.tocsr()) for distinct in range(network.num_distinct)]
    pixels = problem.inputs.pixels(np.arange(count))
    shape = {"nrows": count, "ncols": network.neurons}
    images = gb.Matrix.from_coo(pixels.image, pixels.neuron, pixels.value, **shape)

    def run() -> int:
        y = images.dup()
        for layer in range(network.num_layers):
            y << y.mxm(weights[layer % len(weights)], gb.semiring.plus_times)
            y << y.apply(gb.binary.plus, right=np.float32(network.bias))
            y << y.select(gb.select.valuegt, np.float32(0))
            y << y.apply(gb.binary.min, right=np.float32(CLIP))
        return int(y.reduce_rowwise(gb.monoid.plus).new().nvals)

    return run


def _to_graphblas(matrix: Any) -> Any:
    import graphblas as gb

    return gb.Matrix.from_csr(matrix.indptr, matrix.indices, matrix.data, ncols=matrix.shape[1])


def _report(facts: dict[str, str], results: list[Json]) -> None:
    print(machine_text(facts))
    for result in results:
        wall, cpu = (result[kind] for kind in KINDS)
        print(f"\n{result['case']}: {result['categories']} categories by all; {result['work']:.4g} images x edges")
        print(
            f"{'':20s}{'wall s':>10s}{'edges/s':>10s}{'/ 1 rank':>10s}{'/ 2 ranks':>10s}{'CPU s':>10s}{'/ 1 rank':>10s}"
        )
        for name in wall:
            median, busy = float(np.median(wall[name])), float(np.median(cpu[name]))
            ratios = "".join(f"{_ratio(wall[name], wall.get(ours)):>10s}" for ours in OURS)
            print(
                f"{name:20s}{median:10.4f}{result['work'] / median:10.3g}{ratios}{busy:10.4f}"
                f"{_ratio(cpu[name], cpu.get(OURS[0])):>10s}"
            )


def _ratio(times: list[float], ours: list[float] | None) -> str:
    """Return the median of the ratios within each round."""
    return f"{np.median(np.array(times) / np.array(ours)):.2f}" if ours else ""


if __name__ == "__main__":
    sys.exit(main())
