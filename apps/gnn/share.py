"""Bringing a data set into a job: every rank ends with its own nodes and needs nothing more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from sparsecomm.apps.gnn.dataset import Dataset
from sparsecomm.apps.gnn.read import read_dataset
from sparsecomm.apps.gnn.settings import Settings, operator_of
from sparsecomm.apps.job import bcast_layouts, on_all, on_root, scatter_rows
from sparsecomm.apps.source import Say, quiet
from sparsecomm.apps.whole import distribute
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.errors import InputError
from sparsecomm.io.fingerprint import matrix_fingerprint
from sparsecomm.layout import Layout, Layouts
from sparsecomm.matrix_store import renumber
from sparsecomm.partition.registry import partition_matrix
from sparsecomm.partition.request import Request
from sparsecomm.topology import Topology
from sparsecomm.typing import Bools, IntGlobal

_SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """A data set as reports and checkpoints name it; `fingerprint` is of its edges in original numbering."""

    name: str
    nodes: int
    edges: int
    features: int
    classes: int
    splits: int
    fingerprint: str


@dataclass(frozen=True, slots=True, eq=False)
class Nodes:
    """What this rank knows of its own nodes: (n,) int64 labels and (n,) masks of one split."""

    labels: IntGlobal
    train: Bools
    val: Bools
    test: Bools


@dataclass(frozen=True, slots=True, eq=False)
class GraphShare:
    """What one rank of a job has of a data set.

    Args:
        info: of the whole.
        rows: (own nodes, all nodes) of the operator of the model, in new numbering.
        features: (own nodes, f).
        nodes: labels and masks of the own ones.
        layouts: who owns the nodes.
    """

    info: DatasetInfo
    rows: csr_array[Any]
    features: csr_array[Any]
    nodes: Nodes
    layouts: Layouts


def bring_dataset(
    spec: str,
    settings: Settings,
    topology: Topology,
    transport: Transport,
    *,
    method: str = "block",
    split: int = 0,
    say: Say = quiet,
) -> GraphShare:
    """Read a data set on rank 0, partition its nodes, and hand them out.

    Args:
        spec: see `read_dataset`.
        settings: whose model says what the matrix is; splits that are drawn come from its seed.
        topology: of the job.
        transport: over its ranks.
        method: of the partition.
        split: which of the masks.
        say: told of every step that begins.

    Raises:
        InputError: on every rank, when the data cannot be read or do not fit.

    Note: Collective over comm.
    """
    say(f"reading {spec}")
    dataset = on_root(transport, lambda: read_dataset(spec, seed=settings.seed))
    info: DatasetInfo = transport.bcast(_info(dataset))  # type: ignore[assignment]  # rank 0 has it, or on_root raised
    on_all(transport, lambda: _check_split(split, info))
    dtype = np.dtype(settings.dtype)
    operator = on_root(transport, lambda: operator_of(settings.model, _given(dataset).adjacency, dtype))
    say(f"partitioning by {method} for {topology.num_ranks} ranks")
    request = Request(cache=True)
    found = on_root(transport, lambda: partition_matrix(_given(operator), topology, method, request))
    layouts = bcast_layouts(found, transport)
    say("handing out the nodes")
    columns = Layouts(layouts.rows, Layout.block(info.features, transport.num_ranks))
    features = _handed_out(dataset.features.astype(dtype) if dataset else None, columns, dtype, transport)
    rows = _handed_out(operator, layouts, dtype, transport)
    return GraphShare(info, rows, features, _nodes(dataset, split, layouts.rows, transport), layouts)


def _info(dataset: Dataset | None) -> DatasetInfo | None:
    if dataset is None:
        return None
    shape = (dataset.num_nodes, dataset.adjacency.nnz // 2, dataset.features.shape[1], dataset.num_classes)
    return DatasetInfo(dataset.name, *shape, len(dataset.train), matrix_fingerprint(dataset.adjacency))


def _check_split(split: int, info: DatasetInfo) -> None:
    if not 0 <= split < info.splits:
        raise InputError(f"split {split} is not one of the {info.splits} of {info.name}; give 0 .. {info.splits - 1}")


def _given(thing: Any) -> Any:
    assert thing is not None  # on rank 0, or `on_root` has raised
    return thing


def _handed_out(
    matrix: csr_array[Any] | None, layouts: Layouts, dtype: np.dtype[Any], transport: Transport
) -> csr_array[Any]:
    return scatter_rows(None if matrix is None else renumber(matrix, layouts), layouts, dtype, transport)


def _nodes(dataset: Dataset | None, split: int, layout: Layout, transport: Transport) -> Nodes:
    columns = None
    if dataset is not None:
        masks = [getattr(dataset, name)[split].astype(np.int64) for name in _SPLITS]
        columns = np.stack([dataset.labels, *masks], axis=1)
    mine = distribute(columns, layout, transport)
    return Nodes(np.ascontiguousarray(mine[:, 0]), *(mine[:, 1 + i] == 1 for i in range(len(_SPLITS))))
