"""The local product against the fastest of scipy, MKL and PyTorch, on one thread and on two.

    python benchmarks/kernels.py [--json FILE] [--matrices NAME ...] [--widths 1 16 64 128 256] [--threads 1 2]

MKL (`pip install sparse-dot-mkl`) and PyTorch take part where they are installed. What the figures mean:
benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
from _kernels_job import save_matrix
from _machine import machine, machine_text
from scipy.sparse import csr_array

from sparsecomm.io.matrix import read_matrix
from sparsecomm.kernels.ceilings import Ceilings
from sparsecomm.kernels.model import bytes_in_slices, predict
from sparsecomm.kernels.reuse import Reuse

Json = dict[str, Any]

GENERATED: Final = ("rmat:18", "grid3d27:64", "radixnet:16384:5")
DATA: Final = Path(__file__).resolve().parents[2] / "shared" / "data" / "matrices"
_BURST_S: Final = 0.02  # that all alternatives together take at least in one round
_HOPELESS: Final = 2.0  # times the fastest other: who takes longer is timed once
_LIBRARIES: Final = {"numba": "numba", "MKL": "mkl", "torch": "torch"}


def main() -> int:
    args = _arguments()
    cases = json.loads(args.json.read_text())["cases"] if args.json and args.json.exists() else []
    done = {(case["matrix"], case["width"], case["threads"]) for case in cases}
    facts = (
        machine()
        | {"load": f"{os.getloadavg()[0]:.0f} at the beginning"}
        | {name: _version(package) for name, package in _LIBRARIES.items()}
    )
    begun = time.monotonic()
    with _libraries() as libraries:
        for case in _measure(args, libraries, done):
            cases.append(case)
            print(_line(case), file=sys.stderr, flush=True)
            if time.monotonic() - begun > args.limit:
                print("the limit has passed; run again with the same --json to go on", file=sys.stderr)
                break
    results = {
        "machine": facts,
        "cases": sorted(cases, key=lambda case: (case["matrix"], case["threads"], case["width"])),
    }
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    _report(results)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    real = sorted(str(path) for path in DATA.glob("*.*"))
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep everything measured, and go on where it ends")
    parser.add_argument("--matrices", nargs="+", default=[*real, *GENERATED], help="files or generators")
    parser.add_argument("--widths", nargs="+", type=int, default=[1, 16, 64, 128, 256], help="columns of X")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--seconds", type=float, default=0.5, help="spent on the repetitions of one line (0.5)")
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds after which no line is begun")
    return parser.parse_args()


def _measure(
    args: argparse.Namespace, libraries: dict[str, _Library], done: set[tuple[str, int, int]]
) -> Iterator[Json]:
    for spec in args.matrices:
        name = Path(spec).name.split(".")[0]
        wanted = [(k, t) for k in args.widths for t in args.threads if (name, k, t) not in done]
        if not wanted:
            continue
        matrix = _read(spec)
        with tempfile.TemporaryDirectory() as folder:
            save_matrix(matrix, Path(folder))
            for library in libraries.values():
                library.ask("load", folder)
        reuse = Reuse.of(matrix)
        for width, threads in wanted:
            prediction = predict(reuse, width, 4, _ceilings(threads), sliced_bytes=bytes_in_slices(matrix, width))
            case = {"matrix": name, "rows": matrix.shape[0], "nnz": int(matrix.nnz), "width": width, "threads": threads}
            case |= _one(libraries, width, threads, args.seconds)
            measured = case["seconds"]["ours"]
            yield case | {
                "predicted_over_measured": prediction.seconds / measured,
                "percent_of_bound": 100 * prediction.bound_s / measured,
                "limit": prediction.limit,
            }


def _read(spec: str) -> csr_array[Any]:
    matrix = csr_array(read_matrix(spec, dtype=np.float32))
    return csr_array((matrix.data, matrix.indices.astype(np.int32), matrix.indptr.astype(np.int32)), matrix.shape)


@cache
def _ceilings(threads: int) -> Ceilings:
    ceilings = Ceilings.load(threads) or Ceilings.measure(threads)
    ceilings.save()
    return ceilings


class _Library:
    """A library in a process of its own, which is stopped whenever it is not its turn.

    So none of its threads keeps a core busy while another library is measured, as those of MKL and PyTorch do for
    a while after a product.
    """

    def __init__(self, name: str) -> None:
        command = [sys.executable, str(Path(__file__).with_name("_kernels_job.py")), name]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.there = bool(self._answer())
        self._stop()

    def ask(self, act: str, *arguments: object) -> Any:
        """Let it run until it has answered."""
        self._process.send_signal(signal.SIGCONT)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([act, *arguments]) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        self._stop()
        return answer

    def end(self) -> None:
        self._process.kill()
        self._process.wait()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a library has ended; what it said is above")
        return json.loads(line)

    def _stop(self) -> None:
        self._process.send_signal(signal.SIGSTOP)


@contextmanager
def _libraries() -> Iterator[dict[str, _Library]]:
    """Start the processes of all libraries that are there; end them after."""
    started = {name: _Library(name) for name in ("ours", "scipy", "mkl", "torch")}
    try:
        yield {name: library for name, library in started.items() if library.there}
    finally:
        for library in started.values():
            library.end()


def _one(libraries: dict[str, _Library], width: int, threads: int, seconds: float) -> Json:
    """Run all in turn, again and again; return medians and the median of the ratio to the fastest other."""
    times = {name: [library.ask("prepare", width, threads)] for name, library in libraries.items()}
    least = min(times[name][0] for name in libraries if name != "ours")
    racing = [name for name in libraries if name == "ours" or times[name][0] < _HOPELESS * least]
    once = sum(times[name][0] for name in racing)
    # Products follow each other, as those of an iterative method: what stays in a cache is there for the next.
    loops = max(1, int(_BURST_S / once))
    rounds = max(5, min(101, int(seconds / (once * loops))))
    times |= {name: [] for name in racing}
    for _ in range(rounds):
        for name in racing:
            times[name].append(libraries[name].ask("time", loops))
    medians = {name: statistics.median(values) for name, values in times.items()}
    best = min((name for name in racing if name != "ours"), key=lambda name: medians[name])
    ratio = statistics.median(other / own for other, own in zip(times[best], times["ours"], strict=True))
    return {"rounds": rounds, "seconds": medians, "fastest": best, "ratio": ratio}


def _line(case: Json) -> str:
    others = "".join(f"{name} {1e6 * seconds:12,.1f}  " for name, seconds in case["seconds"].items())
    head = f"{case['matrix']:18s}{case['nnz']:10,d}  k {case['width']:3d}  t {case['threads']}"
    model = f"{case['percent_of_bound']:4.0f} % of the bound ({case['limit']}), {case['predicted_over_measured']:.2f}"
    return f"{head}  us: {others} ratio to {case['fastest']} {case['ratio']:.2f}; {model}"


def _report(results: Json) -> None:
    cases = results["cases"]
    print(machine_text(results["machine"]))
    print("\nMedian microseconds of one product; ratio: time of the fastest other / time of ours")
    for case in cases:
        print(_line(case))
    print()
    for name, part in _groups(cases):
        ratios = [case["ratio"] for case in part]
        reached = sum(ratio >= 1 for ratio in ratios)
        print(
            f"{name:12s}{reached:4d} of {len(ratios):3d} cells at 1.0 or above ({100 * reached / len(ratios):.0f} %), "
            f"geometric mean {statistics.geometric_mean(ratios):.2f}, least {min(ratios):.2f}, most {max(ratios):.2f}"
        )
    off = [abs(case["predicted_over_measured"] - 1) for case in cases]
    print(f"model: predicted / measured is off by {100 * statistics.median(off):.0f} % in the median")


def _groups(cases: list[Json]) -> Iterator[tuple[str, list[Json]]]:
    for key in ("width", "threads"):
        for value in sorted({case[key] for case in cases}):
            yield f"{key} {value}", [case for case in cases if case[key] == value]
    yield "all", cases


def _version(package: str) -> str:
    with suppress(ImportError):
        module = import_module(package)
        return str(getattr(module, "__version__", ""))
    return ""


if __name__ == "__main__":
    os.environ.setdefault("MKL_DYNAMIC", "FALSE")
    raise SystemExit(main())
