"""The loop that cuts nonzeros into runs; imported where it runs."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsecomm.compiled import compiled
from sparsecomm.typing import IntGlobal


@compiled
def cut(indices: Any, num_columns: int, most: int) -> IntGlobal:
    """Return where runs of nonzeros begin, and their end, each as long as it touches at most `most` columns."""
    run_of = np.full(num_columns, -1, np.int64)
    bounds = np.empty(indices.size + 2, np.int64)
    bounds[0], runs, touched = 0, 0, 0
    for place in range(indices.size):
        if run_of[indices[place]] == runs:
            continue
        if touched == most:
            runs, touched = runs + 1, 0
            bounds[runs] = place
        run_of[indices[place]] = runs
        touched += 1
    if indices.size == 0:
        return bounds[:1]
    bounds[runs + 1] = indices.size
    return bounds[: runs + 2].copy()
