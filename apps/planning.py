"""Planning in one process for all ranks of a machine that need not exist."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from sparsecomm.apps.cached_plans import (
    Counts,
    cached_counts,
    cached_product,
    keep_counts,
    keep_product,
    pattern_of_source,
)
from sparsecomm.apps.picture import density, picture_json
from sparsecomm.apps.source import Say, Source, quiet
from sparsecomm.apps.summary import Json, plan_json
from sparsecomm.collectives.strategies import Candidate, candidates, check_ranks, choose, fitting
from sparsecomm.collectives.strategy import Strategy, strategy_names
from sparsecomm.cost import CostModel
from sparsecomm.kernels.reuse import Reuse
from sparsecomm.layout import Layout, Layouts
from sparsecomm.partition.metrics import measure
from sparsecomm.partition.request import Request
from sparsecomm.pattern import Remote
from sparsecomm.plan_cache import PlanCache
from sparsecomm.product import Product
from sparsecomm.product_store import save_product
from sparsecomm.table import Offline
from sparsecomm.topology import Topology
from sparsecomm.volume import Bounds, bounds_of


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """All strategies counted, one of them built and proved.

    Args:
        source: the partitioned matrix.
        remote: finds its remote nonzeros.
        candidates: what the strategies would move.
        late: why the others were not counted.
        product: of the chosen one.
        bounds: what no schedule can be spared.
        width, dtype: what was predicted for.
        seconds: from the partitioned matrix to the proved product.
        calibration: the measurements that were predicted with, if any.
        cache: hits and misses in the cache of plans, where one was given.
    """

    source: Source
    remote: Callable[[], Remote]
    candidates: dict[str, Candidate]
    late: dict[str, str]
    product: Product
    bounds: Bounds
    width: int
    dtype: npt.DTypeLike
    seconds: float
    calibration: Path | None
    cache: dict[str, int] | None

    def to_json(self) -> Json:
        """Return the object of `sparsecomm plan --json`."""
        topology = self.product.topology
        partition = self.source.partition_json(topology)
        shared = plan_json(
            self.source.info,
            topology,
            partition,
            self.width,
            self.dtype,
            self.candidates,
            self.late,
            self.product.strategy,
            self.bounds,
        )
        calibration = str(self.calibration) if self.calibration else None
        more = {"calibration": calibration, "cache": self.cache, "seconds": self.seconds}
        return {"schema": "sparsecomm.plan/1", **shared, **more}

    def save(self, path: Path) -> str:
        """Write a product directory and return the fingerprint of the product.

        Raises:
            InputError: `path` exists and is not a directory that this library wrote.
        """
        info = self.source.info.to_json()
        return save_product(path, self.product, self.remote(), info, self.source.method, self.report())

    def report(self) -> Json:
        """Return `to_json` with a picture of the matrix, as reports are made from."""
        matrix = self.source.matrix
        picture = picture_json(density(matrix, 0, matrix.shape), self.source.layouts, self.product.topology)
        return self.to_json() | {"density": picture}


# A partition is judged by what is quick to count; who wants every strategy makes a plan.
_JUDGED_BY: Final = ("direct", "hierarchical", "reduce", "cover")


def judge_partition(source: Source, topology: Topology, request: Request | None = None) -> Json:
    """Return the object of `sparsecomm partition --json`: balance, rows per level, and what each strategy would move.

    Raises:
        InputError: the partition is for another number of ranks.
    """
    remote = Remote.of(source.matrix, source.layouts)
    check_ranks(remote, topology)
    width, dtype = 64, np.float32
    fullest = int(source.loads().nnz.max(initial=0))
    found = candidates(remote, topology, width=width, max_rank_nnz=fullest, names=_JUDGED_BY)
    late = {name: "`sparsecomm plan` does" for name in strategy_names() if name not in found}
    bounds = bounds_of(remote, topology, Offline(topology.num_ranks))
    partition = source.partition_json(topology)
    report = plan_json(source.info, topology, partition, width, dtype, found, late, "", bounds)
    del report["chosen"]
    renumbered = Layouts(*(Layout(layout.offsets) for layout in source.layouts))
    report["metrics"] = measure(source.matrix, renumbered, topology, request or Request())
    return {"schema": "sparsecomm.partition/1", **report}


def plan_source(
    source: Source,
    topology: Topology,
    *,
    strategy: str = "auto",
    width: int = 64,
    dtype: npt.DTypeLike = np.float32,
    calibration: Path | None = None,
    plans: PlanCache | None = None,
    row_mode: bool = True,
    memory_bytes: int = 0,
    say: Say = quiet,
) -> Planned:
    """Count every strategy for a partitioned matrix, build the one asked for, and prove it; or find it in a cache.

    Raises:
        InputError: the partition is for another number of ranks, or there is no such strategy, or not in this mode, or
            it needs more than `memory_bytes` on a rank for slots and buffers (0 is no limit).
    """
    begin = time.perf_counter()
    cost = _cost(source, topology, calibration)
    known, plans = plans is not None, plans or PlanCache(None)
    pattern = pattern_of_source(source)
    remote = functools.cache(lambda: _find_remote(source, topology, say))
    counts = cached_counts(plans, pattern, topology, strategy)
    if counts is None:
        counts = Counts.of(remote(), topology, Offline(topology.num_ranks), strategy, say)
        keep_counts(plans, pattern, topology, strategy, counts)
    itemsize = np.dtype(dtype).itemsize
    found, large = fitting(counts.candidates(cost, width, itemsize), width * itemsize, memory_bytes, strategy)
    chosen = choose(found, strategy, row_mode=row_mode)
    product = cached_product(plans, pattern, topology, chosen, source.layouts)
    if product is None:
        product = _build(chosen, remote(), topology, say)
        keep_product(plans, pattern, topology, chosen, product)
    seconds = time.perf_counter() - begin
    return Planned(
        source,
        remote,
        found,
        counts.late | large,
        product,
        counts.bounds,
        width,
        dtype,
        seconds,
        calibration,
        plans.to_json() if known else None,
    )


def _cost(source: Source, topology: Topology, calibration: Path | None) -> CostModel:
    if calibration is None:
        return CostModel(topology)
    rows = int(source.layouts.rows.counts[0])
    return CostModel.calibrated(topology, calibration, Reuse.of_first(source.matrix, rows))


def _find_remote(source: Source, topology: Topology, say: Say) -> Remote:
    say("finding what has to move")
    remote = Remote.of(source.matrix, source.layouts)
    check_ranks(remote, topology)
    return remote


def _build(chosen: Strategy, remote: Remote, topology: Topology, say: Say) -> Product:
    say(f"building {chosen.name}")
    product = chosen.build(remote, topology)
    say(f"proving {chosen.name}")
    product.verify(remote)
    return product
