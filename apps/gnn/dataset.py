"""A graph with features, labels and splits, in the one form that the others work with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array, csr_array

from sparsecomm.errors import InputError
from sparsecomm.typing import Bools, IntGlobal


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Nodes to classify.

    Args:
        name: of the data.
        adjacency: (n, n) float32, ones, symmetric, without self-loops.
        features: (n, f) float32.
        labels: (n,) int64 classes, counted from 0.
        train, val, test: (num_splits, n) masks.
    """

    name: str
    adjacency: csr_array[Any]
    features: csr_array[Any]
    labels: IntGlobal
    train: Bools
    val: Bools
    test: Bools

    @property
    def num_nodes(self) -> int:
        return self.labels.size

    @property
    def num_classes(self) -> int:
        return int(self.labels.max(initial=0)) + 1


def make_dataset(
    name: str,
    edges: tuple[IntGlobal, IntGlobal],
    features: csr_array[Any],
    labels: npt.NDArray[Any],
    masks: tuple[Bools, Bools, Bools] | None,
    *,
    counts: bool,
    seed: int = 0,
) -> Dataset:
    """Bring what was read into the one form: undirected, no self-loops, checked.

    Args:
        name: of the data.
        edges: both ends of every edge, in any direction, any number of times.
        features: (n, f).
        labels: (n,) whole numbers from 0.
        masks: (num_splits, n) each of train, val and test, or None to draw them.
        counts: whether features are to be divided by their sum over a row, as bags of words are.
        seed: of the splits that are drawn.

    Raises:
        InputError: shapes differ, a node or label is out of range, or a feature is not finite.
    """
    num_nodes = features.shape[0]
    _check(edges, features, labels, num_nodes)
    labels = labels.astype(np.int64)
    if masks is None:
        masks = draw_splits(labels, seed)
    if any(mask.ndim != 2 or mask.shape[1] != num_nodes for mask in masks) or len({len(mask) for mask in masks}) > 1:
        raise InputError(f"masks have shapes {[mask.shape for mask in masks]} for {num_nodes} nodes")
    features = features.astype(np.float32)
    features.sum_duplicates()
    return Dataset(name, _undirected(edges, num_nodes), _scaled(features) if counts else features, labels, *masks)


def are_counts(features: csr_array[Any]) -> bool:
    """Say whether features are whole numbers from 0, as those of bags of words are."""
    return bool((features.data >= 0).all() and (features.data == np.round(features.data)).all())


def draw_splits(labels: IntGlobal, seed: int) -> tuple[Bools, Bools, Bools]:
    """Draw 20 nodes of every class to train and 30 to validate; the others test.

    Source: Shchur et al., "Pitfalls of graph neural network evaluation", 2018.
    """
    shuffled = np.random.default_rng(seed).permutation(labels.size)
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]
    by_class = labels[order]
    place = np.empty(labels.size, dtype=np.int64)
    place[order] = np.arange(labels.size) - np.searchsorted(by_class, by_class)
    train, val = place < 20, (place >= 20) & (place < 50)
    return train[None], val[None], ~(train | val)[None]


def _undirected(edges: tuple[IntGlobal, IntGlobal], num_nodes: int) -> csr_array[Any]:
    ends = np.concatenate(edges), np.concatenate(edges[::-1])
    kept = ends[0] != ends[1]
    ones = np.ones(int(kept.sum()), dtype=np.float32)
    matrix = csr_array(coo_array((ones, (ends[0][kept], ends[1][kept])), shape=(num_nodes, num_nodes)))
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def _scaled(features: csr_array[Any]) -> csr_array[Any]:
    sums = np.asarray(features.sum(axis=1)).reshape(-1)
    factor = np.divide(1, sums, out=np.zeros_like(sums), where=sums != 0)
    data = features.data * np.repeat(factor, np.diff(features.indptr))
    return csr_array((data.astype(np.float32), features.indices, features.indptr), shape=features.shape)


def _check(edges: tuple[IntGlobal, IntGlobal], features: Any, labels: npt.NDArray[Any], num_nodes: int) -> None:
    for ends in edges:
        if ends.size and (ends.min() < 0 or ends.max() >= num_nodes):
            raise InputError(f"an edge names node {int(ends.max())}, but there are features of {num_nodes} nodes")
    if labels.shape != (num_nodes,) or labels.dtype.kind not in "iu" or (labels.size and labels.min() < 0):
        raise InputError(f"labels must be {num_nodes} whole numbers from 0, not {labels.dtype} of shape {labels.shape}")
    if not np.isfinite(features.data).all():
        raise InputError("a feature is not finite; remove or replace it")
