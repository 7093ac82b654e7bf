"""The time of a local product before it runs, and the bound that no product of its kind can beat here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy.sparse import csr_array

from sparsecomm.kernels.cache import caches
from sparsecomm.kernels.ceilings import SETS_BYTES, Ceilings
from sparsecomm.kernels.reuse import Reuse
from sparsecomm.kernels.sliced import Sliced
from sparsecomm.kernels.tiled import is_uniform

_INDEX_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model says of one product.

    Args:
        seconds: of the product.
        flops: a multiplication and an addition for each nonzero and column.
        moved_bytes: what each memory has to deliver or take: `L1` all of X that is read, the others what nearer ones
            do not hold, and the matrix and Y where they come from.
        limits_s: seconds of each memory at the best rate it was measured at.
    """

    seconds: float
    flops: int
    moved_bytes: dict[str, int]
    limits_s: dict[str, float]

    @property
    def bound_s(self) -> float:
        """The time of the slowest memory, as if all others cost nothing."""
        return max(self.limits_s.values())

    @property
    def limit(self) -> str:
        """The memory that binds."""
        return max(self.limits_s, key=lambda name: self.limits_s[name])


def predict(reuse: Reuse, width: int, itemsize: int, ceilings: Ceilings, *, sliced_bytes: int = 0) -> Prediction:
    """Return the time of `Y = A @ X` by the compiled loops.

    Every nonzero takes what its row of X takes out of a set as large as what was touched since that row's last use;
    every row takes what beginning a row takes.

    Args:
        reuse: of the matrix.
        width: columns of X.
        itemsize: bytes of an entry.
        ceilings: of this machine, for the threads that share the product.
        sliced_bytes: of value and column of a nonzero, where the matrix is in slices and `width` is 1; see
            `bytes_in_slices`.

    Source: roofline of Williams, Waterman, Patterson 2009, with one roof for each cache, and distances between uses.
    """
    row_bytes, entry_bytes = width * itemsize, sliced_bytes or itemsize + _INDEX_BYTES
    sets, counts = reuse.working_sets(row_bytes, entry_bytes)
    if sliced_bytes and ceilings.slice_s:
        each = float(ceilings.of_slices(sliced_bytes, sets) @ counts) / max(reuse.nnz, 1)
        seconds = reuse.nnz * each + reuse.rows * ceilings.slice_row_s
    else:
        each = nonzero_s(reuse, row_bytes, itemsize, ceilings)
        seconds = reuse.nnz * each + reuse.rows * ceilings.of_row(row_bytes)
    streamed = reuse.nnz * entry_bytes + reuse.rows * row_bytes
    moved: dict[str, int] = {}
    limits: dict[str, float] = {}
    for place, size in enumerate(SETS_BYTES):
        least = SETS_BYTES[place - 1] if place else 0
        rows = int(counts[sets > least].sum()) * row_bytes
        num_bytes, name = rows + (streamed if sets[-1] > least else 0), holder(size)
        moved[name] = max(moved.get(name, 0), num_bytes)
        limits[name] = max(limits.get(name, 0.0), num_bytes / ceilings.bandwidth_Bps(place))
    return Prediction(seconds, 2 * reuse.nnz * width, moved, limits)


def bytes_in_slices(matrix: csr_array[Any], width: int) -> int:
    """Return the bytes of value and column of a nonzero in slices; 0 where products of this width have none."""
    if width > 1 or not Sliced.suits(matrix):
        return 0
    return Sliced(matrix, is_uniform(matrix.data)).entry_bytes


def nonzero_s(reuse: Reuse, row_bytes: int, itemsize: int, ceilings: Ceilings) -> float:
    """Return the seconds that a nonzero takes in the mean, as `predict` counts them."""
    sets, counts = reuse.working_sets(row_bytes, itemsize + _INDEX_BYTES)
    return float(ceilings.of_nonzero(row_bytes, sets) @ counts) / max(reuse.nnz, 1)


def holder(num_bytes: int) -> str:
    """Return the name of the smallest cache of this processor that holds so much, or `memory`."""
    return next((name for name, size in caches() if num_bytes <= size), "memory")


def staged_traffic(
    padded_rows: int, footprint: int, rows: int, width: int, *, itemsize: int = 4, minibatch: int = 12
) -> dict[str, float]:
    """Return the bytes of Tiled SpMM on a GPU: what global and shared memory move, and operations for each byte.

    Args:
        padded_rows: rows of 32 padded nonzeros, of all warps and stages.
        footprint: columns that all blocks stage.
        rows: of the matrix.
        width: columns of X.
        itemsize: bytes of an entry.
        minibatch: columns of X that a thread keeps sums of.

    Source: the model of MemXCT (Hidayetoglu et al. 2020): the matrix is read once for each minibatch, X once for each
    block that uses a row, Y written once; shared memory delivers one entry for each padded nonzero.
    """
    passes = -(-width // minibatch)
    padded = 32 * padded_rows
    matrix = passes * (padded * (itemsize + 2) + footprint * 2)
    blocks = width * itemsize * (footprint + rows)
    return {
        "global_bytes": float(matrix + blocks),
        "shared_bytes": float(width * itemsize * (padded + footprint)),
        "flops": float(2 * padded * width),
        "flops_per_global_byte": float(2 * padded * width / max(1, matrix + blocks)),
    }


def percent(part: float, whole: float) -> float:
    """Return how much of `whole` is `part`, in percent."""
    return float(100 * np.divide(part, whole)) if whole else 0.0
