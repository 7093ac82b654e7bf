"""What is known of a data set as a whole, and of the nodes of one rank."""

from __future__ import annotations

from dataclasses import dataclass

from sparsecomm.apps.gnn.dataset import Dataset
from sparsecomm.io.fingerprint import matrix_fingerprint
from sparsecomm.typing import Bools, IntGlobal


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

    @staticmethod
    def of(dataset: Dataset) -> DatasetInfo:
        """Describe a data set."""
        shape = (dataset.num_nodes, dataset.adjacency.nnz // 2, dataset.features.shape[1], dataset.num_classes)
        return DatasetInfo(dataset.name, *shape, len(dataset.train), matrix_fingerprint(dataset.adjacency))


@dataclass(frozen=True, slots=True, eq=False)
class Nodes:
    """What this rank knows of its own nodes: (n,) int64 labels and (n,) masks of one split."""

    labels: IntGlobal
    train: Bools
    val: Bools
    test: Bools
