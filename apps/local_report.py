"""The local product of a matrix, predicted and measured: what `sparsecomm kernel` prints."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from sparsecomm.kernels import prepare
from sparsecomm.kernels.ceilings import Ceilings
from sparsecomm.kernels.model import bytes_in_slices, percent, predict, staged_traffic
from sparsecomm.kernels.reorder import footprint_bound, reorder_rows, total_footprint
from sparsecomm.kernels.reuse import Reuse
from sparsecomm.kernels.staged import Staged
from sparsecomm.kernels.threads import clock
from sparsecomm.kernels.tiled import vectors_before_slices

Json = dict[str, Any]
Say = Callable[[str], None]


def judge_product(
    matrix: csr_array[Any],
    name: str,
    width: int,
    threads: int,
    *,
    repeat: int = 9,
    measure: bool = False,
    reorder: str = "none",
    say: Say = lambda text: None,
) -> Json:
    """Return prediction, bound and measured times of `matrix @ X`, and the counts of Tiled SpMM.

    Args:
        matrix: (m, n) float32 or float64.
        name: of the matrix, for the report.
        width: columns of X.
        threads: that share the product.
        repeat: products that are measured.
        measure: measure the machine even where that was done before.
        reorder: how rows are reordered first, see `reorder_rows`.
        say: told what is under way.

    Raises:
        InputError: the matrix cannot be reordered so.
    """
    if reorder != "none":
        say(f"reordering rows by {reorder}")
    order = reorder_rows(matrix, reorder)
    footprints = {"before": total_footprint(matrix, np.arange(matrix.shape[0]))}
    footprints |= {"after": total_footprint(matrix, order), "bound": footprint_bound(matrix)}
    if reorder != "none":
        matrix = csr_array(matrix[order])
    ceilings = (None if measure else Ceilings.load(threads)) or _measured(threads, say)
    say("counting what is read again, and when")
    sliced = bytes_in_slices(matrix, width)
    prediction = predict(Reuse.of(matrix), width, matrix.dtype.itemsize, ceilings, sliced_bytes=sliced)
    say("multiplying")
    times = _times(matrix, width, threads, repeat)
    median = statistics.median(times)
    return {
        "schema": "sparsecomm.kernel/1",
        "matrix": {"name": name, "rows": matrix.shape[0], "cols": matrix.shape[1], "nnz": int(matrix.nnz)},
        "width": width,
        "dtype": str(matrix.dtype),
        "threads": threads,
        "predicted_s": prediction.seconds,
        "measured_s": {"median": median, "min": min(times), "max": max(times)},
        "predicted_over_measured": prediction.seconds / median,
        "bound_s": prediction.bound_s,
        "percent_of_bound": percent(prediction.bound_s, median),
        "limit": prediction.limit,
        "limits_s": prediction.limits_s,
        "moved_bytes": prediction.moved_bytes,
        "flops": prediction.flops,
        "flops_per_s": prediction.flops / median,
        "staged": _staged(matrix, width),
        "reorder": {"method": reorder, **footprints},
    }


def _measured(threads: int, say: Say) -> Ceilings:
    ceilings = Ceilings.measure(threads, say)
    ceilings.save()
    return ceilings


def _times(matrix: csr_array[Any], width: int, threads: int, repeat: int) -> list[float]:
    x = np.random.default_rng(0).standard_normal((matrix.shape[1], width)).astype(matrix.dtype)
    product = prepare(matrix, implementation="compiled", threads=threads)
    out = product.multiply(x)
    for _ in range((vectors_before_slices(matrix) or 0) if width == 1 else 0):
        product.multiply(x, out)
    now, times = clock(threads), []
    for _ in range(repeat):
        begin = now()
        product.multiply(x, out)
        times.append(now() - begin)
    return times


def _staged(matrix: csr_array[Any], width: int) -> Json:
    staged = Staged.of(matrix)
    traffic = staged_traffic(len(staged.index), staged.map.size, matrix.shape[0], width, itemsize=matrix.dtype.itemsize)
    return {
        "block_rows": staged.block_rows,
        "stage_columns": staged.stage_columns,
        "footprint": staged.mean_footprint,
        "stages": staged.mean_stages,
        "padding": staged.padding,
        "reuse": matrix.nnz / max(1, staged.map.size),
        **traffic,
    }
