"""Partitioner `auto`: tries several and keeps the best; what it found is kept for the next time."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from sparsecomm.errors import SparseCommError
from sparsecomm.layout import Layouts
from sparsecomm.partition.cache import load_cached, save_cached
from sparsecomm.partition.child import Child
from sparsecomm.partition.goals import check_goal, judge
from sparsecomm.partition.levels import group_limits
from sparsecomm.partition.libraries import LIBRARIES
from sparsecomm.partition.request import Request
from sparsecomm.topology import Topology

_LOG = logging.getLogger("sparsecomm")

# What each effort adds to those below it; a name may stand for a method with other requests.
_BY_EFFORT = (
    ("block", "nnz", "rcm", "streaming"),
    ("twins", "metis", "kaminpar"),
    ("mtkahypar", "mtkahypar-graph", "metis-vol", "metis/flat"),
    ("mtkahypar/rows", "mtkahypar/seed", "metis/seed", "kaminpar/seed"),
)
_CUT_BY_EFFORT = (
    ("block", "nnz", "rcm"),
    ("metis", "kaminpar"),
    ("mtkahypar-graph", "metis/seed"),
    ("kaminpar/seed", "mtkahypar-graph/seed"),
)


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """One layout that was tried: what it is judged at and how far beyond its limits it is, or why there is none.

    `seconds` are those of the partitioner, refinement included.
    """

    name: str
    layouts: Layouts | None
    value: float
    beyond: float = 0.0
    reason: str = ""
    seconds: float = 0.0


def partition_auto(matrix: csr_array[Any], topology: Topology, request: Request) -> Layouts:
    """Return the layout that is judged best among those that the effort allows.

    Raises:
        InputError: the goal is unknown.
        SparseCommError: no method succeeded.
    """
    check_goal(request)
    keep = request.cache and isinstance(request.goal, str)
    found = load_cached(matrix, topology, request) if keep else None
    if found is None:
        found = best(portfolio(matrix, topology, request)).layouts
        assert found is not None  # `best` looks only at trials with layouts
        if keep:
            save_cached(matrix, topology, request, found)
    return found


def portfolio(matrix: csr_array[Any], topology: Topology, request: Request) -> list[Trial]:
    """Try the methods of the effort that are installed, in a fixed order."""
    check_goal(request)
    sets = _CUT_BY_EFFORT if request.goal == "cut" else _BY_EFFORT
    names = [name for tier in sets[: request.effort + 1] for name in tier]
    with Child.kept():
        return [_try(name, matrix, topology, request) for name in names if _available(name)]


def best(trials: list[Trial]) -> Trial:
    """Return the trial judged best of those within the limits, or the one least beyond; the earliest of equal ones.

    Raises:
        SparseCommError: none succeeded.
    """
    done = [trial for trial in trials if trial.layouts is not None]
    if not done:
        reasons = "; ".join(f"{trial.name}: {trial.reason}" for trial in trials)
        raise SparseCommError(f"no partition method succeeded: {reasons}")
    return min(done, key=lambda trial: (trial.beyond, trial.value))


def _available(name: str) -> bool:
    method = name.partition("/")[0]
    return all(library.installed() for library in LIBRARIES if library.method == method)


def _try(name: str, matrix: csr_array[Any], topology: Topology, request: Request) -> Trial:
    from sparsecomm.partition.registry import partition_matrix

    method, _, variant = name.partition("/")
    asked = replace(request, refine=request.refine and request.goal != "cut")
    if variant == "seed":
        asked = replace(asked, seed=request.seed + 1)
    elif variant == "rows":
        asked = replace(asked, side="rows")
    elif variant == "flat":
        asked = replace(asked, flat=True)
    begin = time.perf_counter()
    try:
        layouts = partition_matrix(matrix, topology, method, asked)
    except SparseCommError as err:
        _LOG.warning("auto goes on without %s: %s", name, err)
        return Trial(name, None, float("inf"), reason=str(err))
    seconds = time.perf_counter() - begin
    value = judge(matrix, layouts, topology, request)
    _LOG.info("auto: %s is judged %g", name, value)
    return Trial(name, layouts, value, _beyond(matrix, layouts, topology, request), seconds=seconds)


def _beyond(matrix: csr_array[Any], layouts: Layouts, topology: Topology, request: Request) -> float:
    """Return how far the fullest rank or node is beyond its limit, over the limit; 0 where all keep theirs."""
    counts = np.diff(matrix.indptr if request.side != "columns" else matrix.tocsc().indptr).astype(np.int64)
    layout, worst = layouts.cols if request.side == "columns" else layouts.rows, 0.0
    for group in (topology.group_of(-1), topology.rank_to_node):
        limits = group_limits(counts[:, None], request.shares(topology), group, request.balance, request)[:, 0]
        loads = np.bincount(group[layout.owners()[layout.to_all()]], counts, limits.size)
        worst = max(worst, float(((loads - limits) / np.maximum(limits, 1)).max()))
    return worst
