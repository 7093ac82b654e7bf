"""A small graph to train on, and training over threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array, random_array

from sparsecomm.apps.gnn.job import GnnOptions, run_gnn
from sparsecomm.apps.gnn.settings import Settings
from sparsecomm.collectives.transport.local import run_local
from sparsecomm.topology import Topology

TOPOLOGIES = {1: "nodes:1", 2: "nodes:1,1", 3: "nodes:2,1", 4: "uniform:2x2", 7: "nodes:3,3,1"}
CLOSE = {"float32": 1e-5, "float64": 1e-10}
EPOCHS = 50

NODES, FEATURES, CLASSES, SPLITS = 90, 40, 3, 2


def write_graph(path: Path, density: float = 0.2) -> str:
    """Write a random graph as plain arrays; node 5 has no neighbours."""
    rng = np.random.default_rng(0)
    linked = np.arange(NODES) != 5
    edges = random_array((NODES, NODES), density=0.04, format="csr", rng=rng).toarray() * linked * linked[:, None]
    adjacency, features = csr_array(edges), random_array((NODES, FEATURES), density=density, format="csr", rng=rng)
    masks = {f"{name}_masks": rng.random((SPLITS, NODES)) < 0.4 for name in ("train", "val", "test")}
    np.savez(
        path,
        adj_indptr=adjacency.indptr,
        adj_indices=adjacency.indices,
        x_indptr=features.indptr,
        x_indices=features.indices,
        x_data=features.data.astype(np.float32),
        x_shape=np.array(features.shape),
        y=rng.integers(0, CLASSES, NODES),
        **masks,
    )
    return str(path)


def plain(dtype: str = "float64") -> dict[str, Any]:
    """Return settings that the dense reference has too."""
    return {"dropout": 0.0, "dtype": dtype, "epochs": EPOCHS, "patience": 0}


def train(
    dataset: str, settings: Settings, ranks: int, strategy: str = "auto", method: str = "block", **options: Any
) -> dict[str, Any]:
    """Train over threads and return the report."""
    topology = Topology.parse(TOPOLOGIES[ranks])
    given = GnnOptions(dataset, settings, method=method, strategy=strategy, **options)
    return run_local(ranks, lambda transport: run_gnn(given, topology, transport), deadline_s=200)[0]


def losses(report: dict[str, Any]) -> np.ndarray:
    """Return (epochs, 2): training loss and validation loss."""
    return np.array([(epoch["loss"], epoch["val_loss"]) for epoch in report["epochs"]])
