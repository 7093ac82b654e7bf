"""The run-time guard of `auto`: the two plans predicted fastest run, and the ranks keep the one that is."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sparsecomm.apps.cached_plans import cached_trial, keep_trial
from sparsecomm.apps.row_planner import RowPlanner
from sparsecomm.apps.summary import Json
from sparsecomm.collectives.strategies import Candidate, choose
from sparsecomm.collectives.strategy import Strategy, get_strategy
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.product import RankProduct

if TYPE_CHECKING:
    from sparsecomm.apps.matrix import DistMatrix

_TIMES: Final = 5  # of each plan, after one to warm up


@dataclass(frozen=True, slots=True)
class Trial:
    """How long the plans that ran against each other took.

    Args:
        seconds: median of a product, its slowest rank counting, by strategy.
        cached: whether that was found with the plans, and nothing ran.
    """

    seconds: dict[str, float]
    cached: bool = False

    @property
    def kept(self) -> str:
        """The strategy that was faster."""
        return min(self.seconds, key=lambda name: self.seconds[name])

    def to_json(self) -> Json:
        return {"seconds": self.seconds, "kept": self.kept, "cached": self.cached}


def try_plans(
    planner: RowPlanner,
    found: dict[str, Candidate],
    make: Callable[[RankProduct], DistMatrix],
    width: int,
    dtype: np.dtype[Any],
) -> Trial:
    """Let the two plans that are predicted fastest multiply in turn, unless that was done before.

    Args:
        planner: of the matrix.
        found: the strategies with their predictions.
        make: opens the matrix with a product.
        width: columns of X.
        dtype: of X.

    Returns:
        The same on every rank, since times of all of them are compared.

    Note: Collective over comm.
    """
    names = [strategy.name for strategy in _best_two(found)]
    key = planner.key("trial", *names, width, dtype.str)
    known = cached_trial(planner.plans, key, planner.transport)
    if known is not None:
        return Trial(known, cached=True)
    with ExitStack() as stack:
        matrices = [stack.enter_context(make(planner.product(get_strategy(name)))) for name in names]
        seconds = _time(matrices, width, dtype, planner.transport)
    trial = Trial(dict(zip(names, seconds, strict=True)))
    keep_trial(planner.plans, key, planner.transport, trial.seconds)
    return trial


def _best_two(found: dict[str, Candidate]) -> list[Strategy]:
    """Return the strategy predicted fastest, and the next one that moves anything else."""
    best = choose(found)
    others = {name: one for name, one in found.items() if one.volume != found[best.name].volume}
    return [best, choose(others)] if others else [best]


def _time(matrices: list[DistMatrix], width: int, dtype: np.dtype[Any], transport: Transport) -> list[float]:
    """Return the median time of a product of each matrix, in turn, so that what disturbs one disturbs all."""
    blocks = []
    for matrix in matrices:
        x = matrix.empty(width, dtype)
        x[...] = 1
        matrix @ x
        blocks.append(x)
    times = np.zeros((_TIMES, len(matrices)))
    for run in range(_TIMES):
        for number, (matrix, x) in enumerate(zip(matrices, blocks, strict=True)):
            transport.barrier()
            begin = time.perf_counter()
            matrix @ x
            times[run, number] = time.perf_counter() - begin
    medians: list[float] = np.median(transport.reduce(times, "max"), axis=0).tolist()
    return medians
