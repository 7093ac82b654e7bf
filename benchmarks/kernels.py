"""The local product against the fastest of scipy, MKL and PyTorch, in one process, on one thread and on two.

    python benchmarks/kernels.py [--json FILE] [--matrices NAME ...] [--widths 1 16 64 128 256] [--threads 1 2]

MKL (`pip install sparse-dot-mkl`) and PyTorch take part where they are installed. What the figures mean:
benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
from _machine import machine, machine_text
from scipy.sparse import csr_array

from sparsecomm.io.matrix import read_matrix
from sparsecomm.kernels import prepare
from sparsecomm.kernels.ceilings import Ceilings
from sparsecomm.kernels.model import predict
from sparsecomm.kernels.reuse import Reuse
from sparsecomm.kernels.threads import clock

Json = dict[str, Any]
Act = Callable[[], Any]

GENERATED: Final = ("rmat:18", "grid3d27:64", "radixnet:16384:5")
DATA: Final = Path(__file__).resolve().parents[2] / "shared" / "data" / "matrices"
TOLERANCE: Final = 1e-5  # of |A||X|
_WARM: Final = 25  # products with one vector before the first that counts: ours gets ready for more after 20
_BURST_S: Final = 0.02  # that all alternatives together take at least in one round
_SETTLE_S: Final = 0.005  # in which threads of the library before stop waiting for more by keeping a core busy
_HOPELESS: Final = 2.0  # times the fastest other: who takes longer is timed once
_CHECKED: Final = 4  # columns that are compared with float64
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
    for case in _measure(args, done):
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


def _measure(args: argparse.Namespace, done: set[tuple[str, int, int]]) -> Iterator[Json]:
    for spec in args.matrices:
        name = Path(spec).name.split(".")[0]
        wanted = [(k, t) for k in args.widths for t in args.threads if (name, k, t) not in done]
        if not wanted:
            continue
        matrix = csr_array(read_matrix(spec, dtype=np.float32))
        matrix = csr_array((matrix.data, matrix.indices.astype(np.int32), matrix.indptr.astype(np.int32)), matrix.shape)
        reuse = Reuse.of(matrix)
        for width, threads in wanted:
            prediction = predict(reuse, width, 4, _ceilings(threads))
            case = {"matrix": name, "rows": matrix.shape[0], "nnz": int(matrix.nnz), "width": width, "threads": threads}
            case |= _one(matrix, width, threads, args.seconds)
            measured = case["seconds"]["ours"]
            yield case | {
                "predicted_over_measured": prediction.seconds / measured,
                "percent_of_bound": 100 * prediction.bound_s / measured,
                "limit": prediction.limit,
            }
            gc.collect()


@cache
def _ceilings(threads: int) -> Ceilings:
    ceilings = Ceilings.load(threads) or Ceilings.measure(threads)
    ceilings.save()
    return ceilings


def _one(matrix: csr_array[Any], width: int, threads: int, seconds: float) -> Json:
    """Run all in turn, again and again; return medians and the median of the ratio to the fastest other."""
    x = np.random.default_rng(0).standard_normal((matrix.shape[1], width), dtype=np.float32)
    now, acts = clock(threads), dict(_alternatives(matrix, x, threads))
    few = x[:, :_CHECKED].astype(np.float64)
    scale = csr_array((np.abs(matrix.data), matrix.indices, matrix.indptr), matrix.shape).astype(np.float64) @ np.abs(
        few
    )
    exact = matrix.astype(np.float64) @ few
    for name, act in acts.items():
        for _ in range(_WARM if width == 1 else 1):
            result = act()
        error = np.abs(np.asarray(result).reshape(-1, width)[:, :_CHECKED] - exact) / np.where(scale == 0, 1, scale)
        if error.size and error.max() > TOLERANCE:
            raise SystemExit(f"{name} is wrong by {error.max():.1e} of |A||X|")
    times = {name: [_time(act, 1, now)] for name, act in acts.items()}
    least = min(times[name][0] for name in acts if name != "ours")
    racing = {name: act for name, act in acts.items() if name == "ours" or times[name][0] < _HOPELESS * least}
    once = sum(times[name][0] for name in racing)
    # Products follow each other, as those of an iterative method: what stays in a cache is there for the next.
    loops = max(1, int(_BURST_S / once))
    rounds = max(5, min(101, int(seconds / (once * loops))))
    times |= {name: [] for name in racing}
    for _ in range(rounds):
        for name, act in racing.items():
            if threads > 1:
                time.sleep(_SETTLE_S)
            times[name].append(_time(act, loops, now))
    medians = {name: statistics.median(values) for name, values in times.items()}
    best = min((name for name in racing if name != "ours"), key=lambda name: medians[name])
    ratio = statistics.median(other / own for other, own in zip(times[best], times["ours"], strict=True))
    return {"rounds": rounds, "seconds": medians, "fastest": best, "ratio": ratio}


def _alternatives(matrix: csr_array[Any], x: np.ndarray[Any, Any], threads: int) -> Iterator[tuple[str, Act]]:
    """Yield ours and the others, each at its best: into memory that is there, where the library has a word for it."""
    out = np.empty((matrix.shape[0], x.shape[1]), np.float32)
    ours = prepare(matrix, implementation="fused", threads=threads)
    yield "ours", lambda: ours.multiply(x, out)
    plain = prepare(matrix, implementation="scipy")  # scipy's loops, without the new memory of `@`
    yield "scipy", lambda: plain.multiply(x, out)
    with suppress(ImportError):
        yield "mkl", _by_mkl(matrix, x, threads)
    with suppress(ImportError):
        yield "torch", _by_torch(matrix, x, threads)


def _by_mkl(matrix: csr_array[Any], x: np.ndarray[Any, Any], threads: int) -> Act:
    mkl = import_module("sparse_dot_mkl")
    mkl.mkl_set_num_threads(threads)
    out = np.zeros((matrix.shape[0], x.shape[1]), np.float32)
    if x.shape[1] == 1:
        vector, result = x[:, 0], out[:, 0]
        return lambda: mkl.dot_product_mkl(matrix, vector, out=result, out_scalar=0.0)
    return lambda: mkl.dot_product_mkl(matrix, x, out=out, out_scalar=0.0)


def _by_torch(matrix: csr_array[Any], x: np.ndarray[Any, Any], threads: int) -> Act:
    torch = import_module("torch")
    warnings.simplefilter("ignore")  # that its sparse tensors are new
    torch.set_num_threads(threads)
    parts = [torch.from_numpy(part) for part in (matrix.indptr, matrix.indices, matrix.data)]
    sparse, dense = torch.sparse_csr_tensor(*parts, size=matrix.shape), torch.from_numpy(x)
    out = torch.empty((matrix.shape[0], x.shape[1]))
    return lambda: torch.mm(sparse, dense, out=out)


def _time(act: Act, loops: int, now: Callable[[], float]) -> float:
    begin = now()
    for _ in range(loops):
        act()
    return (now() - begin) / loops


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
    os.environ.setdefault("KMP_BLOCKTIME", "2")  # milliseconds that MKL's threads keep a core busy after a product
    raise SystemExit(main())
