"""Products with N:M weights against the dense product of numpy, on one thread.

    python benchmarks/structured.py [--seconds 0.3]

What the figures mean: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any, Final

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from _machine import machine, machine_text

from sparsecomm.kernels.structured import Structured

# Weights: rows, columns; and the columns of X, as of a layer and a batch.
SHAPES: Final = ((1024, 1024), (4096, 1024))
WIDTHS: Final = (16, 128, 512)
PATTERNS: Final = ((2, 4, 0), (1, 4, 0), (1, 16, 0), (2, 8, 16))
TOLERANCE: Final = 1e-5  # of |W||X|


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=0.3, help="spent on the repetitions of one line (0.3)")
    args = parser.parse_args()
    print(machine_text(machine()))
    print("\nMedian microseconds of one product in float32; ratio: time of the dense product / time of ours")
    for rows, cols in SHAPES:
        for width in WIDTHS:
            for n, m, v in PATTERNS:
                print(_line(rows, cols, width, (n, m, v), args.seconds), flush=True)
    return 0


def _line(rows: int, cols: int, width: int, pattern: tuple[int, int, int], seconds: float) -> str:
    rng, (n, m, v) = np.random.default_rng(0), pattern
    weights, x = rng.standard_normal((rows, cols), dtype=np.float32), rng.standard_normal((cols, width), np.float32)
    packed = Structured.pack(weights, n, m, v)
    masked, out = packed.to_csr().toarray(), np.empty((rows, width), np.float32)
    error = np.abs(packed.multiply(x, threads=1) - masked @ x) / (np.abs(masked) @ np.abs(x) + 1e-30)
    if error.max() > TOLERANCE:
        raise SystemExit(f"{n}:{m} is wrong by {error.max():.1e} of |W||X|")
    acts: dict[str, Callable[[], Any]] = {
        "ours": lambda: packed.multiply(x, out, threads=1),
        "dense": lambda: np.matmul(masked, x, out=out),
    }
    times = _times(acts, seconds)
    ours, dense = (statistics.median(times[name]) for name in acts)
    ratio = statistics.median(there / own for there, own in zip(times["dense"], times["ours"], strict=True))
    name = f"{v}:{n}:{m}" if v else f"{n}:{m}"
    share = packed.num_bytes / weights.nbytes
    return (
        f"{rows:5d} x {cols:5d}  k {width:3d}  {name:8s} ours {1e6 * ours:10,.0f}  dense {1e6 * dense:10,.0f}  "
        f"ratio {ratio:5.2f}; {share:.3f} of the bytes"
    )


def _times(acts: dict[str, Callable[[], Any]], seconds: float) -> dict[str, list[float]]:
    """Run all in turn, again and again."""
    times: dict[str, list[float]] = {name: [] for name in acts}
    for act in acts.values():
        act()
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(times["ours"]) < 3:
        for name, act in acts.items():
            begin = time.thread_time()
            act()
            times[name].append(time.thread_time() - begin)
    return times


if __name__ == "__main__":
    raise SystemExit(main())
