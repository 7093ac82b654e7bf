"""How sure a median of few measurements is."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_SAMPLES = 10_000


def median_interval(values: npt.NDArray[Any], seed: int = 0) -> tuple[float, float, float]:
    """Return the median and the ends of its 95 % interval: percentiles of medians of values drawn again.

    Source: percentile bootstrap of Efron, 1979.
    """
    drawn = np.random.default_rng(seed).choice(values, (_SAMPLES, values.size))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return float(np.median(values)), float(low), float(high)
