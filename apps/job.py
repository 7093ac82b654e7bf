"""Bringing a matrix into a job: every rank ends with its own rows and the layouts, and needs nothing more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from sparsecomm.apps.source import Say, Source, is_partition, load_source, quiet
from sparsecomm.apps.summary import Json, Loads, MatrixInfo
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.errors import InputError, SparseCommError
from sparsecomm.layout import Layout, Layouts
from sparsecomm.matrix_store import load_partition_header, load_partition_layouts, load_shard, partition_seconds
from sparsecomm.product import RankProduct
from sparsecomm.product_store import check_matrix, check_topology, load_product_header, load_rank_product
from sparsecomm.store import Header
from sparsecomm.table import Table
from sparsecomm.topology import Topology

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Share:
    """What one rank of a job has of a matrix.

    Args:
        info: of the whole matrix.
        rows: (own rows, all columns) in new numbering.
        layouts: who owns rows and columns.
        method: how the matrix was partitioned.
        seconds: what that took.
        source: the whole matrix where this rank has read it, else None.
    """

    info: MatrixInfo
    rows: csr_array[Any]
    layouts: Layouts
    method: str
    seconds: float
    source: Source | None

    def loads(self, transport: Transport) -> Loads:
        """Return rows and nonzeros of every rank.

        Note: Collective over comm.
        """
        counts = (self.rows.shape[0], self.rows.nnz)
        return Loads(*(transport.collect(np.array([count], dtype=np.int64)) for count in counts))

    def partition_json(self, topology: Topology, transport: Transport) -> Json:
        """Return the `partition` entry of a report.

        Note: Collective over comm.
        """
        return {
            "method": self.method,
            "seconds": self.seconds,
            "imbalance": self.loads(transport).imbalance(topology),
        }


@dataclass(frozen=True, slots=True, eq=False)
class ReadyPlan:
    """This rank's part of a product directory."""

    path: Path
    header: Header
    product: RankProduct

    @staticmethod
    def read(path: Path, topology: Topology, transport: Transport) -> ReadyPlan:
        """Read the header and this rank's shard.

        Raises:
            InputError: on every rank, when it is damaged or for another machine.

        Note: Collective over comm.
        """
        header = on_all(transport, lambda: load_product_header(path, transport.num_ranks))
        on_all(transport, lambda: check_topology(path, header, topology))
        return ReadyPlan(path, header, on_all(transport, lambda: load_rank_product(path, header, transport.rank)))

    def check(self, info: MatrixInfo) -> None:
        """Refuse a matrix that the plan was not made for.

        Raises:
            InputError: with both matrices.
        """
        check_matrix(self.path, self.header, info.name, info.fingerprint)


def on_all(transport: Transport, act: Callable[[], T]) -> T:
    """Run a local `act` on every rank; an error on any of them becomes everybody's.

    Note: Collective over comm.
    """
    error, result = None, None
    try:
        result = act()
    except SparseCommError as err:
        error = err
    transport.agree(error)
    return cast(T, result)  # where `act` failed, `agree` has raised


def on_root(transport: Transport, act: Callable[[], T]) -> T | None:
    """Run a local `act` on rank 0 and return what it gave there; its error becomes everybody's.

    Note: Collective over comm.
    """
    return on_all(transport, lambda: act() if transport.rank == 0 else None)


def bring(
    spec: str,
    topology: Topology,
    transport: Transport,
    *,
    method: str = "block",
    dtype: npt.DTypeLike = np.float32,
    one_based: bool = False,
    plan: ReadyPlan | None = None,
    say: Say = quiet,
) -> Share:
    """Read a matrix into a job.

    A partition directory is read shard by shard, each rank its own. Anything else is read and partitioned by rank 0,
    which sends every rank its rows.

    Args:
        spec: a file, a generator, or a partition directory.
        topology: of the job.
        transport: over its ranks.
        method: a partition method, or a partition directory whose layout is to be used.
        dtype: of the values.
        one_based: whether an edge list counts from 1.
        plan: use its layouts, and refuse a matrix it was not made for.
        say: told of every step that begins.

    Raises:
        InputError: on every rank, when something cannot be read or does not fit.

    Note: Collective over comm.
    """
    if transport.bcast(is_partition(spec)):
        return _from_shards(Path(spec), transport, np.dtype(dtype), plan, say)
    source = on_root(
        transport,
        lambda: load_source(
            spec,
            topology,
            method=plan.header.get("partition", "planned") if plan else method,
            dtype=dtype,
            one_based=one_based,
            layouts=plan.product.layouts if plan else None,
            check=plan.check if plan else None,
            say=say,
        ),
    )
    info, method, seconds = transport.bcast((source.info, source.method, source.seconds) if source else _NOTHING)
    layouts = bcast_layouts(source.layouts if source else None, transport)
    say("handing out the rows")
    rows = scatter_rows(source.matrix if source else None, layouts, np.dtype(dtype), transport)
    return Share(info, rows, layouts, method, seconds, source)


_NOTHING = cast(tuple[MatrixInfo, str, float], None)


def _from_shards(path: Path, transport: Transport, dtype: np.dtype[Any], plan: ReadyPlan | None, say: Say) -> Share:
    say(f"reading the shards of {path}")
    header = on_all(transport, lambda: load_partition_header(path, transport.num_ranks))
    info = MatrixInfo(**header["matrix"])
    layouts = on_all(transport, lambda: load_partition_layouts(path, header))
    if plan is not None:
        on_all(transport, lambda: plan.check(info))
        on_all(transport, lambda: _check_same(path, layouts, plan))
    rows = on_all(transport, lambda: load_shard(path, layouts, transport.rank, dtype))
    return Share(info, rows, layouts, header["method"], partition_seconds(header), None)


def _check_same(path: Path, layouts: Layouts, plan: ReadyPlan) -> None:
    for mine, planned in zip(layouts, plan.product.layouts, strict=True):
        if not np.array_equal(mine.offsets, planned.offsets) or not np.array_equal(mine.to_all(), planned.to_all()):
            raise InputError(f"plan {plan.path} was made with another partition than {path}; plan {path} again")


def bcast_layouts(layouts: Layouts | None, transport: Transport) -> Layouts:
    """Return the layouts of rank 0 on every rank; one object for both sides stays one object.

    Note: Collective over comm.
    """
    parts = None
    if layouts is not None:
        sides = layouts[:1] if layouts.cols is layouts.rows else layouts
        parts = [(side.offsets, side.old_to_new) for side in sides]
    made = [Layout(*part) for part in cast(list[Any], transport.bcast(parts))]
    return Layouts(made[0], made[-1])


def scatter_rows(
    matrix: csr_array[Any] | None, layouts: Layouts, dtype: np.dtype[Any], transport: Transport
) -> csr_array[Any]:
    """Send every rank its rows of a matrix that rank 0 has in new numbering, None elsewhere.

    Note: Collective over comm.
    """
    if matrix is None:
        matrix = csr_array((0, layouts.cols.num_rows), dtype=dtype)
    owner = layouts.rows.owners() if matrix.shape[0] else np.empty(0, dtype=np.int32)
    counts = np.diff(matrix.indptr).astype(np.int64)
    here = np.full(matrix.nnz, transport.rank, dtype=np.int32)
    entries = Table(here, {"col": matrix.indices.astype(np.int64), "value": matrix.data})
    lengths = transport.route(Table(owner, {"count": counts}), owner)["count"]
    moved = transport.route(entries, np.repeat(owner, counts))
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return csr_array((moved["value"], moved["col"], indptr), shape=(lengths.size, layouts.cols.num_rows))
