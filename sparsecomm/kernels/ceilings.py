"""What the local product costs on this machine, measured once: how long a row of X takes, by how far away it is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from sparsecomm.kernels.cache import cache_folder, processor
from sparsecomm.kernels.prepared import Prepared
from sparsecomm.kernels.sliced import Sliced
from sparsecomm.kernels.threads import clock

Dense = npt.NDArray[Any]
Reals = npt.NDArray[np.float64]

# Sets of rows of X that fit the first cache, the second, the last, and hardly any.
SETS_BYTES: Final = (1 << 14, 1 << 17, 1 << 20, 1 << 23, 1 << 26, 1 << 28)
ROW_BYTES: Final = (4, 64, 256, 1024)
_FLOAT_BYTES: Final = 4
_MOST_SHORT: Final = 1 << 16  # columns that 16 bits number
_LONG, _SHORT = 32, 4  # nonzeros of a row: the difference is what beginning a row costs
_SECONDS: Final = 0.01
_VERSION: Final = 3


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Seconds of one nonzero, and of one row of the matrix.

    Args:
        processor: whose they are.
        threads: that shared the product; times are of the product, so more threads have smaller ones.
        nonzero_s: a table, `[i][j]` for rows of X of `ROW_BYTES[i]` out of a set of `SETS_BYTES[j]`.
        row_s: for each of `ROW_BYTES`, what a row of the matrix costs beside its nonzeros.
        slice_s: for each of `SETS_BYTES`, a nonzero of a matrix in slices times a vector, where values are all the
            same, and where they differ; empty where this processor has no slices.
        slice_row_s: what a row of such a matrix costs beside its nonzeros.
    """

    processor: str
    threads: int
    nonzero_s: tuple[tuple[float, ...], ...]
    row_s: tuple[float, ...]
    slice_s: tuple[tuple[float, ...], ...] = ()
    slice_row_s: float = 0.0

    @staticmethod
    def measure(threads: int, say: Callable[[str], None] = lambda text: None) -> Ceilings:
        """Measure them, in a few seconds."""
        table, rows, sliced = [], [], _SlicedTimes((), 0.0)
        for row_bytes in ROW_BYTES:
            say(f"measuring products of rows of {row_bytes} bytes")
            table.append(tuple(_seconds(row_bytes, size, _LONG, threads) / _LONG for size in SETS_BYTES))
            short = _seconds(row_bytes, SETS_BYTES[1], _SHORT, threads)
            rows.append(_of_row(short, table[-1][1]))
        if Sliced.can_be():
            say("measuring products of slices")
            sliced = _sliced_times(threads)
        return Ceilings(processor(), threads, tuple(table), tuple(rows), *sliced)

    @staticmethod
    def load(threads: int) -> Ceilings | None:
        """Return those that were kept for this processor; None if there are none."""
        try:
            kept = json.loads(_path(threads).read_text())
            if kept.pop("version") != _VERSION:
                return None
            found = Ceilings.of_json(kept)
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return found if (found.processor, found.threads) == (processor(), threads) else None

    @staticmethod
    def of_json(kept: dict[str, Any]) -> Ceilings:
        """Return what `asdict` made of them.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        table = np.array(kept["nonzero_s"], dtype=np.float64)
        rows = np.array(kept["row_s"], dtype=np.float64)
        if table.shape != (len(ROW_BYTES), len(SETS_BYTES)) or rows.shape != (len(ROW_BYTES),):
            raise ValueError(f"{table.shape} times of nonzeros and {rows.shape} of rows")
        if not (table > 0).all() or not (rows >= 0).all():
            raise ValueError("times that are not positive")
        sliced = np.array(kept.get("slice_s", ()), dtype=np.float64)
        if sliced.size and sliced.shape != (2, len(SETS_BYTES)):
            raise ValueError(f"{sliced.shape} times of nonzeros in slices")
        per_nonzero, of_slices = tuple(map(tuple, table.tolist())), tuple(map(tuple, sliced.tolist()))
        facts = str(kept["processor"]), int(kept["threads"])
        return Ceilings(*facts, per_nonzero, tuple(rows.tolist()), of_slices, float(kept.get("slice_row_s", 0.0)))

    def save(self) -> None:
        """Keep them in the user's cache folder; where that cannot be written they are measured again."""
        path = _path(self.threads)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_suffix(f".{os.getpid()}")
            beside.write_text(json.dumps({"version": _VERSION, **asdict(self)}, indent=1))
            beside.rename(path)
        except OSError:
            return

    def of_nonzero(self, row_bytes: int, set_bytes: Reals) -> Reals:
        """Return the seconds of one nonzero for each set of rows of X, between what was measured by powers."""
        table = np.log([[_between(row_bytes, column) for column in zip(*self.nonzero_s, strict=True)]])[0]
        result: Reals = np.exp(np.interp(np.log(np.maximum(set_bytes, 1)), np.log(SETS_BYTES), table))
        return result

    def of_slices(self, entry_bytes: int, set_bytes: Reals) -> Reals:
        """Return the seconds of one nonzero in slices, whose value and index have so many bytes, for each set."""
        same, differing = (np.interp(np.log(np.maximum(set_bytes, 1)), np.log(SETS_BYTES), row) for row in self.slice_s)
        indices = np.where(set_bytes / _FLOAT_BYTES <= _MOST_SHORT, 2, 4)  # bytes of those that were measured
        result: Reals = same + (differing - same) / _FLOAT_BYTES * (entry_bytes - indices)
        return np.maximum(result, same / 2)

    def of_row(self, row_bytes: int) -> float:
        """Return the seconds that a row of the matrix costs beside its nonzeros."""
        return float(np.interp(row_bytes, ROW_BYTES, self.row_s)) * max(1.0, row_bytes / ROW_BYTES[-1])

    def bandwidth_Bps(self, place: int) -> float:
        """Return the most bytes of X per second out of a set of `SETS_BYTES[place]`, of any width."""
        return max(size / row[place] for size, row in zip(ROW_BYTES, self.nonzero_s, strict=True))


def _between(row_bytes: int, seconds: tuple[float, ...]) -> float:
    """Return seconds for a width between those measured; beyond the last they grow with it."""
    known = float(np.interp(row_bytes, ROW_BYTES, seconds))
    return known * max(1.0, row_bytes / ROW_BYTES[-1])


class _SlicedTimes(NamedTuple):
    """See `Ceilings`."""

    slice_s: tuple[tuple[float, ...], ...]
    slice_row_s: float


def _sliced_times(threads: int) -> _SlicedTimes:
    times = [
        [_seconds(_FLOAT_BYTES, size, _LONG, threads, sliced=True, same=same) / _LONG for size in SETS_BYTES]
        for same in (True, False)
    ]
    short = _seconds(_FLOAT_BYTES, SETS_BYTES[1], _SHORT, threads, sliced=True)
    return _SlicedTimes(tuple(map(tuple, times)), _of_row(short, times[1][1]))


def _of_row(short: float, nonzero_s: float) -> float:
    """Return what a row costs beside its nonzeros, from the seconds of a short one."""
    return max(0.0, short - _SHORT * nonzero_s) * _LONG / (_LONG - _SHORT)


def _seconds(
    row_bytes: int, set_bytes: int, per_row: int, threads: int, *, sliced: bool = False, same: bool = False
) -> float:
    """Return the seconds per row of a product of random columns out of a set.

    Args:
        row_bytes: of a row of X.
        set_bytes: of all of X.
        per_row: nonzeros of a row.
        threads: that share the product.
        sliced: whether the matrix has been copied into slices.
        same: whether its values are all the same.
    """
    rng = np.random.default_rng(0)
    cols = max(1, set_bytes // row_bytes)
    rows = max(64 * threads, min(1 << 15 if sliced else 1 << 16, (1 << 25) // (per_row * row_bytes)))
    indices = rng.integers(0, cols, rows * per_row).astype(np.int32)
    data = np.ones(indices.size, np.float32) if same else rng.standard_normal(indices.size, dtype=np.float32)
    matrix = csr_array((data, indices, np.arange(rows + 1, dtype=np.int32) * per_row), shape=(rows, cols))
    x, out = np.ones((cols, row_bytes // 4), np.float32), np.zeros((rows, row_bytes // 4), np.float32)
    multiply = _product(matrix, threads, sliced, same)
    multiply(x, out)
    now = clock(threads)
    times, end = list[float](), now() + _SECONDS
    while now() < end or len(times) < 3:
        begin = now()
        multiply(x, out)
        times.append(now() - begin)
    return float(np.median(times)) / rows


def _product(matrix: csr_array[Any], threads: int, sliced: bool, same: bool) -> Callable[[Dense, Dense], object]:
    if sliced:
        slices = Sliced(matrix, same)
        return lambda x, out: slices.multiply(x, out, threads)
    return Prepared(matrix, implementation="compiled", threads=threads).multiply


def _path(threads: int) -> Path:
    return cache_folder() / f"ceilings-{threads}.json"
