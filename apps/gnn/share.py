"""Bringing a data set into a job: every rank ends with its own nodes and needs nothing more."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from sparsecomm.apps.gnn.dataset import Dataset
from sparsecomm.apps.gnn.info import DatasetInfo, Nodes
from sparsecomm.apps.gnn.read import read_dataset
from sparsecomm.apps.gnn.settings import Settings, operator_of, operator_rows
from sparsecomm.apps.gnn.shards import (
    SPLITS,
    is_graph,
    load_adjacency,
    load_features,
    load_graph_header,
    load_graph_layouts,
    load_nodes,
)
from sparsecomm.apps.job import bcast_layouts, on_all, on_root, scatter_rows
from sparsecomm.apps.source import Say, quiet
from sparsecomm.apps.whole import distribute
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.errors import InputError
from sparsecomm.layout import Layout, Layouts
from sparsecomm.matrix_store import renumber
from sparsecomm.partition.registry import partition_matrix
from sparsecomm.partition.request import Request
from sparsecomm.topology import Topology


@dataclass(frozen=True, slots=True, eq=False)
class GraphShare:
    """What one rank of a job has of a data set.

    Args:
        info: of the whole.
        rows: (own nodes, all nodes) of the operator of the model, in new numbering.
        features: (own nodes, f).
        nodes: labels and masks of the own ones.
        layouts: who owns the nodes.
        method: how they were partitioned.
    """

    info: DatasetInfo
    rows: csr_array[Any]
    features: csr_array[Any]
    nodes: Nodes
    layouts: Layouts
    method: str


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
    """Read a data set on rank 0, partition its nodes, and hand them out; of a graph directory each rank reads its part.

    Args:
        spec: see `read_dataset`, or a graph directory.
        settings: whose model says what the matrix is; splits that are drawn come from its seed.
        topology: of the job.
        transport: over its ranks.
        method: of the partition; that of a graph directory is what it was cut by.
        split: which of the masks.
        say: told of every step that begins.

    Raises:
        InputError: on every rank, when the data cannot be read or do not fit.

    Note: Collective over comm.
    """
    if on_all(transport, lambda: is_graph(spec)):
        return _from_shards(Path(spec), settings, transport, split, say)
    say(f"reading {spec}")
    dataset = on_root(transport, lambda: read_dataset(spec, seed=settings.seed))
    info: DatasetInfo = transport.bcast(DatasetInfo.of(dataset) if dataset else None)  # type: ignore[assignment]  # rank 0 has it, or on_root raised
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
    return GraphShare(info, rows, features, _nodes(dataset, split, layouts.rows, transport), layouts, method)


def _from_shards(path: Path, settings: Settings, transport: Transport, split: int, say: Say) -> GraphShare:
    """Read this rank's part of a graph directory; no rank reads more than that and who owns which node."""
    rank, dtype = transport.rank, np.dtype(settings.dtype)
    header, info = on_all(transport, lambda: load_graph_header(path, transport.num_ranks))
    on_all(transport, lambda: _check_split(split, info))
    say(f"reading the shards of {path}")
    layouts = on_all(transport, lambda: load_graph_layouts(path, header))
    adjacency, degrees = on_all(transport, lambda: load_adjacency(path, layouts, rank))
    features = on_all(transport, lambda: load_features(path, layouts, rank, info, dtype))
    nodes = on_all(transport, lambda: load_nodes(path, layouts, rank, info, split))
    rows = operator_rows(settings.model, adjacency, layouts.rows.own_rows(rank).start, degrees, dtype)
    return GraphShare(info, rows, features, nodes, layouts, header["method"])


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
        masks = [getattr(dataset, name)[split].astype(np.int64) for name in SPLITS]
        columns = np.stack([dataset.labels, *masks], axis=1)
    mine = distribute(columns, layout, transport)
    return Nodes(np.ascontiguousarray(mine[:, 0]), *(mine[:, 1 + i] == 1 for i in range(len(SPLITS))))
