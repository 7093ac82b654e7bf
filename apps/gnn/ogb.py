"""Folders of the Open Graph Benchmark for the classes of nodes, as they lie on disk after a download."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from sparsecomm.apps.gnn.dataset import Dataset, make_dataset
from sparsecomm.errors import InputError
from sparsecomm.typing import Bools

_SPLITS: Final = ("train", "valid", "test")


def is_ogb(path: Path) -> bool:
    """Say whether `path` holds `raw/edge.csv.gz`."""
    return (path / "raw" / "edge.csv.gz").is_file()


def read_ogb(path: Path) -> Dataset:
    """Read `raw/{edge,node-feat,node-label}.csv.gz` and the nodes of `split/NAME/{train,valid,test}.csv.gz`.

    Args:
        path: the folder, such as `ogbn_arxiv`.

    Raises:
        InputError: a file is missing or damaged, nodes have no features or several labels, or parts do not fit.

    Source: Hu et al., "Open graph benchmark: datasets for machine learning on graphs", 2020.
    """
    raw = path / "raw"
    features = _table(raw / "node-feat.csv.gz", np.float32)
    labels, edges = (_table(raw / f"{name}.csv.gz", np.int64) for name in ("node-label", "edge"))
    if labels.shape[1] != 1:
        raise InputError(f"node-label.csv.gz has {labels.shape[1]} labels a node; only one class a node can be learned")
    if edges.shape[1] != 2:
        raise InputError(f"edge.csv.gz has {edges.shape[1]} columns, not the two ends of an edge")
    masks = _masks(path / "split", len(features))
    return make_dataset(path.name, (edges[:, 0], edges[:, 1]), csr_array(features), labels[:, 0], masks, counts=False)


def _masks(folder: Path, num_nodes: int) -> tuple[Bools, Bools, Bools]:
    kinds = sorted(kind for kind in folder.glob("*") if kind.is_dir())
    if len(kinds) != 1:
        names = ", ".join(kind.name for kind in kinds) or "none"
        raise InputError(f"split must hold one folder, which says who trains; it holds {names}")
    train, val, test = (_mask(kinds[0] / f"{name}.csv.gz", num_nodes) for name in _SPLITS)
    return train, val, test


def _mask(file: Path, num_nodes: int) -> Bools:
    nodes = _table(file, np.int64)
    if nodes.size and not 0 <= nodes.min() <= nodes.max() < num_nodes:
        raise InputError(f"{file.name} names node {nodes.max()}, but there are features of {num_nodes} nodes")
    mask = np.zeros((1, num_nodes), dtype=bool)
    mask[0, nodes.reshape(-1)] = True
    return mask


def _table(file: Path, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Read numbers in lines, (lines, columns)."""
    try:
        with gzip.open(file, "rt", encoding="ascii") as lines:
            return np.loadtxt(lines, dtype=dtype, delimiter=",", ndmin=2, comments=None)
    except FileNotFoundError:
        raise InputError(f"needs {file.parent.name}/{file.name}") from None
    except (OSError, EOFError, zlib.error, ValueError, OverflowError) as err:
        raise InputError(f"{file.name} is no sound table of numbers ({err}); copy it again") from err
