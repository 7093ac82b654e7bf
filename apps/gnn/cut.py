"""Cutting a data set for the ranks of a job, ahead of it and in one process."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from sparsecomm.apps.gnn.read import read_dataset
from sparsecomm.apps.gnn.settings import Settings, operator_of
from sparsecomm.apps.gnn.shards import KIND, save_graph
from sparsecomm.apps.summary import Json
from sparsecomm.partition.registry import partition_matrix
from sparsecomm.partition.request import Request
from sparsecomm.store import check_replaceable
from sparsecomm.topology import Topology


def cut_dataset(spec: str, path: Path, settings: Settings, topology: Topology, method: str) -> Json:
    """Read a data set, partition its nodes, and write a graph directory.

    Args:
        spec: see `read_dataset`.
        path: the directory to make.
        settings: whose model says what the partition is to spread, and whose seed draws splits where there are none.
        topology: the ranks to cut for.
        method: of the partition.

    Returns:
        What was written, as a report.

    Raises:
        InputError: the data cannot be read, or `path` exists and is no graph directory.
    """
    check_replaceable(path, KIND)
    dataset = read_dataset(spec, seed=settings.seed)
    operator = operator_of(settings.model, dataset.adjacency, settings.dtype)
    layouts = partition_matrix(operator, topology, method, Request(cache=True))
    info = save_graph(path, dataset, layouts, topology, method)
    ranks = {"ranks": topology.num_ranks, "nodes_per_rank": layouts.rows.counts.tolist()}
    return {"schema": "sparsecomm.gnn_graph/1", "dataset": asdict(info), "partition": {"method": method}, **ranks}
