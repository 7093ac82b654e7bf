"""What planning finds, in a form that a `PlanCache` keeps: counts of all strategies, and products."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from sparsecomm.apps.source import Say, Source
from sparsecomm.collectives.strategies import Candidate, candidates, passed_over
from sparsecomm.collectives.strategy import Strategy, get_strategy, is_built_in, strategy_names
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.cost import CostModel
from sparsecomm.hashing import hash_table
from sparsecomm.io.fingerprint import fingerprint, structure_hash
from sparsecomm.layout import Layouts
from sparsecomm.pattern import Remote
from sparsecomm.plan_cache import PlanCache, plan_key
from sparsecomm.product import Product, RankProduct
from sparsecomm.product_arrays import load_product_arrays, save_product_arrays
from sparsecomm.product_store import load_shard, save_shard
from sparsecomm.store import Header
from sparsecomm.table import Router
from sparsecomm.topology import Topology
from sparsecomm.volume import Bounds, Volume, bounds_of


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """What the strategies would move, whatever the width.

    Args:
        volumes: by name.
        late: why the others were not counted.
        bounds: what no schedule can be spared.
        max_rank_nnz: nonzeros of the rank that has most.
        own_nnz: how many of them have an own column.
        mean_rank_nnz: nonzeros of all ranks over the number of ranks.
        mean_rank_rows: rows of Y over the number of ranks.
    """

    volumes: dict[str, Volume]
    late: dict[str, str]
    bounds: Bounds
    max_rank_nnz: int
    own_nnz: int
    mean_rank_nnz: int
    mean_rank_rows: int

    @staticmethod
    def of(remote: Remote, topology: Topology, router: Router, asked: str, say: Say) -> Counts:
        """Count every strategy and the lower bounds.

        Note: Collective over comm.
        """
        say("counting the strategies")
        found = candidates(remote, topology, router=router, asked=asked)
        late = passed_over(remote, topology, router, asked)
        say("computing lower bounds")
        volumes = {name: candidate.volume for name, candidate in found.items()}
        return Counts(volumes, late, bounds_of(remote, topology, router), *_busiest(remote, router))

    def candidates(self, cost: CostModel, width: int, itemsize: int) -> dict[str, Candidate]:
        """Predict the time of every strategy."""
        return {
            name: Candidate(get_strategy(name), volume, cost.estimate(volume, width, itemsize, *self._loads()))
            for name, volume in self.volumes.items()
        }

    def with_volume(self, name: str, volume: Volume) -> Counts:
        """Return these counts with another volume for a strategy, that of a ready plan for example."""
        late = {other: reason for other, reason in self.late.items() if other != name}
        return replace(self, volumes=self.volumes | {name: volume}, late=late)

    def to_json(self) -> Header:
        volumes = {name: _noted(volume) for name, volume in self.volumes.items()}
        return {"volumes": volumes, "late": self.late, "bounds": self.bounds._asdict(), "loads": self._loads()}

    @staticmethod
    def from_json(header: Header) -> Counts:
        volumes = {name: _restored(fields) for name, fields in header["volumes"].items()}
        bounds = Bounds(**header["bounds"])
        return Counts(volumes, header["late"], bounds, *header["loads"])

    def _loads(self) -> tuple[int, int, int, int]:
        return self.max_rank_nnz, self.own_nnz, self.mean_rank_nnz, self.mean_rank_rows


def _busiest(remote: Remote, router: Router) -> tuple[int, int, int, int]:
    """Return the nonzeros of the rank that has most, how many have an own column, and the means of nonzeros and rows.

    Note: Collective over comm.
    """
    own = remote.own_nnz
    nnz = own + np.bincount(remote.nonzeros.rank - router.held.start, minlength=own.size)
    most = router.reduce(np.array([nnz.max(initial=0)], dtype=np.int64), "max")[0]
    of_it = router.reduce(np.array([own[nnz == most].max(initial=0)], dtype=np.int64), "max")[0]
    total = router.reduce(np.array([nnz.sum()], dtype=np.int64), "sum")[0]
    return int(most), int(of_it), int(total) // router.num_ranks, remote.layouts.rows.num_rows // router.num_ranks


def _noted(volume: Volume) -> Header:
    fields = {name: np.asarray(getattr(volume, name)).tolist() for name in volume.__slots__ if name != "phases"}
    return fields | {"phases": [_noted(phase) for phase in volume.phases]}


def _restored(fields: Header) -> Volume:
    phases = tuple(_restored(phase) for phase in fields["phases"])
    arrays = {name: np.array(value, dtype=np.int64) for name, value in fields.items() if isinstance(value, list)}
    return Volume(**fields | arrays | {"phases": phases})


def pattern_of_source(source: Source) -> str:
    """Return a fingerprint of a matrix in original numbering and of who owns its rows and columns."""
    return f"{source.info.fingerprint} {_layouts_hash(source.layouts, permuted=True):016x}"


def pattern_of_rows(rows: csr_array[Any], layouts: Layouts, transport: Transport) -> str:
    """Return a fingerprint of a matrix in new numbering and of who owns its rows and columns.

    Args:
        rows: (own rows, all columns) of this rank.
        layouts: who owns rows and columns.
        transport: over the ranks of the layouts.

    Note: Collective over comm.
    """
    start = int(layouts.rows.offsets[transport.rank])
    row = np.repeat(np.arange(start, start + rows.shape[0], dtype=np.int64), np.diff(rows.indptr))
    mine = structure_hash(row, rows.indices.astype(np.int64, copy=False))
    total = transport.reduce(np.array([mine], dtype=np.uint64), "sum")[0]
    shape = (layouts.rows.num_rows, layouts.cols.num_rows)
    return f"{fingerprint(shape, np.uint64(total))} {_layouts_hash(layouts, permuted=False):016x}"


def _layouts_hash(layouts: Layouts, *, permuted: bool) -> int:
    total = 0
    for factor, layout in zip((1, 3), layouts, strict=True):
        total += factor * hash_table([layout.offsets])
        if permuted and layout.old_to_new is not None:
            total += 5 * factor * hash_table([layout.old_to_new])
    return total % 2**64


def cached_counts(cache: PlanCache, pattern: str, topology: Topology, asked: str) -> Counts | None:
    """Return the counts that were made for the strategy asked for; strategies of a program's own are never cached."""
    if not is_built_in(*strategy_names()):
        return None
    key = plan_key(pattern, topology, "counts", asked)
    return cache.get(key, lambda path, header: Counts.from_json(header))


def keep_counts(cache: PlanCache, pattern: str, topology: Topology, asked: str, counts: Counts) -> None:
    if is_built_in(*strategy_names()):
        cache.put(plan_key(pattern, topology, "counts", asked), counts, lambda path: counts.to_json())


def cached_product(
    cache: PlanCache, pattern: str, topology: Topology, strategy: Strategy, layouts: Layouts
) -> Product | None:
    """Return the whole product of a strategy."""

    def read(path: Path, header: Header) -> Product:
        return load_product_arrays(path, header, topology, layouts)

    found = cache.get(plan_key(pattern, topology, strategy.name), read) if is_built_in(strategy) else None
    return replace(found, layouts=layouts) if found else None


def keep_product(cache: PlanCache, pattern: str, topology: Topology, strategy: Strategy, product: Product) -> None:
    if is_built_in(strategy):
        key = plan_key(pattern, topology, strategy.name)
        cache.put(key, product, lambda path: save_product_arrays(path, product))


def cached_rank_product(
    cache: PlanCache, pattern: str, topology: Topology, strategy: Strategy, layouts: Layouts, transport: Transport
) -> RankProduct | None:
    """Return this rank's part of a product where every rank has its own, and None where any has not.

    Note: Collective over comm.
    """
    rank = transport.rank

    def read(path: Path, header: Header) -> RankProduct:
        product = load_shard(path, header, rank, layouts)
        if f"{product.hash():016x}" != header["hash"]:
            raise ValueError(f"{path} is damaged")
        return product

    key = plan_key(pattern, topology, strategy.name, "rank", rank)
    found = cache.get(key, read) if is_built_in(strategy) else None
    missing = bool(transport.reduce(np.array([found is None]), "max")[0])
    if missing and found is not None:
        cache.take_back()
    return None if missing or found is None else replace(found, layouts=layouts)


def keep_rank_product(
    cache: PlanCache, pattern: str, topology: Topology, strategy: Strategy, product: RankProduct
) -> None:
    """Keep this rank's part of a product, each rank for itself: folders need not be shared."""

    def write(path: Path) -> Header:
        save_shard(path, product)
        return {"strategy": product.strategy, "relays": product.relays, "hash": f"{product.hash():016x}"}

    if is_built_in(strategy):
        cache.put(plan_key(pattern, topology, strategy.name, "rank", product.rank), product, write)


def cached_trial(cache: PlanCache, key: str, transport: Transport) -> dict[str, float] | None:
    """Return the seconds that rank 0 has kept for two plans.

    Note: Collective over comm.
    """
    found = cache.get(key, lambda path, header: dict(header["seconds"])) if transport.rank == 0 else None
    return transport.bcast(found)


def keep_trial(cache: PlanCache, key: str, transport: Transport, seconds: dict[str, float]) -> None:
    if transport.rank == 0:
        cache.put(key, seconds, lambda path: {"seconds": seconds})
