"""How a product is walked through: measured where it matters, remembered for matrices alike."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from scipy.sparse import csr_array

from sparsecomm.kernels.cache import cache_folder, caches, processor
from sparsecomm.kernels.threads import clock

# Multiply-adds from which a product is worth measuring, and that a trial takes at most.
TUNED_WORK: Final = 1 << 23
_TRIAL_WORK: Final = 1 << 25
_ROUNDS: Final = 5
# Matrices whose features are powers of two closer than this are taken for alike.
_ALIKE: Final = 0.25
_MAX_ENTRIES: Final = 512
_VERSION: Final = 5

_AHEAD: Final = (8, 16)
_LINE_BYTES: Final = 64

Entry = dict[str, Any]


class Setting(NamedTuple):
    """How a product is walked through; the result does not depend on it.

    Args:
        ahead: nonzeros between asking for a row of X and using it; 0 leaves it to the processor.
        lines: whether X is read and the result written by whole cache lines, where their rows begin within lines.
        streamed: whether the result is written past the caches.
    """

    ahead: int = 0
    lines: bool = False
    streamed: bool = False


def candidates(matrix: csr_array[Any], width: int) -> dict[str, Setting]:
    """Return the settings that are worth trying for a product with X of `width` columns."""
    row_bytes = width * matrix.dtype.itemsize
    plain = {"plain": Setting()} | {f"ahead {ahead}": Setting(ahead) for ahead in _AHEAD}
    if row_bytes % _LINE_BYTES:
        return plain
    # Rows of several lines are faster by lines wherever that can be; where it cannot these settings are the plain ones.
    found = plain if row_bytes == _LINE_BYTES else {f"lines {ahead}": Setting(ahead, True) for ahead in (0, *_AHEAD)}
    if matrix.shape[0] * row_bytes > dict(caches()).get("L2", 1 << 20):
        found |= {f"streamed {ahead}": Setting(ahead, True, True) for ahead in (0, *_AHEAD)}
    return found


def features(matrix: csr_array[Any], width: int, threads: int) -> list[float]:
    """Return what decides how a product behaves, as logarithms: sizes, nonzeros of a row, width, jumps, threads."""
    sample = matrix.indices[:: max(1, matrix.nnz // 4096)].astype(np.int64)
    jump = np.abs(np.diff(sample)).mean() if sample.size > 1 else 0.0
    per_row, itemsize = matrix.nnz / max(1, matrix.shape[0]), matrix.dtype.itemsize
    facts = [*matrix.shape, per_row, width * itemsize, jump, itemsize, threads]
    return [round(float(np.log2(1 + fact)), 3) for fact in facts]


def choose_setting(
    matrix: csr_array[Any], width: int, threads: int, run: Callable[[Setting, int, int], None]
) -> Setting:
    """Return the best setting for a product: that of the nearest matrix known, else the fastest measured.

    Args:
        matrix: that is multiplied.
        width: columns of X.
        threads: that share the product.
        run: `run(setting, first, last)` multiplies these rows into memory that nobody reads.
    """
    wanted, entries, tried = features(matrix, width, threads), _load(), candidates(matrix, width)
    near = min(entries, key=lambda entry: _distance(entry, wanted), default=None)
    if near is not None and _distance(near, wanted) <= _ALIKE and near["best"] in tried:
        return tried[near["best"]]
    first, last = _trial_rows(matrix, width)
    now, seconds = clock(threads), dict.fromkeys(tried, np.inf)
    for _ in range(_ROUNDS):
        for name, setting in tried.items():
            seconds[name] = min(seconds[name], _seconds(run, setting, first, last, now))
    best = min(tried, key=lambda name: seconds[name])
    _save([*entries, {"features": wanted, "best": best}])
    return tried[best]


def _trial_rows(matrix: csr_array[Any], width: int) -> tuple[int, int]:
    """Return rows around the middle that are enough to tell."""
    half = _TRIAL_WORK // (2 * max(1, width))
    middle = matrix.nnz // 2
    first, last = np.searchsorted(matrix.indptr, [middle - half, middle + half])
    return max(0, int(first) - 1), min(matrix.shape[0], int(last))


def _seconds(
    run: Callable[[Setting, int, int], None], setting: Setting, first: int, last: int, now: Callable[[], float]
) -> float:
    begin = now()
    run(setting, first, last)
    return now() - begin


def _distance(entry: Entry, wanted: Sequence[float]) -> float:
    known = entry["features"]
    if len(known) != len(wanted):
        return float("inf")
    return float(np.abs(np.subtract(known, wanted)).max())


def _load() -> list[Entry]:
    """Return what is remembered for this processor; a file that is damaged, or another's, is nothing."""
    try:
        kept = json.loads((cache_folder() / "tuning.json").read_text())
        if (kept["version"], kept["processor"]) != (_VERSION, processor()):
            return []
        return [{"features": list(map(float, one["features"])), "best": str(one["best"])} for one in kept["entries"]]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def _save(entries: list[Entry]) -> None:
    """Remember the latest entries; where nothing can be written they are measured again."""
    path = cache_folder() / "tuning.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}")
        kept = {"version": _VERSION, "processor": processor(), "entries": entries[-_MAX_ENTRIES:]}
        beside.write_text(json.dumps(kept))
        beside.rename(path)
    except OSError:
        return
