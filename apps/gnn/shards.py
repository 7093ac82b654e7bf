"""Graph directories: a data set cut for the ranks of a job, of which every rank reads only its part."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from sparsecomm.apps.gnn.dataset import Dataset
from sparsecomm.apps.gnn.info import DatasetInfo, Nodes
from sparsecomm.errors import InputError
from sparsecomm.layout import Layouts
from sparsecomm.matrix_store import load_shard, renumber, save_shard
from sparsecomm.store import (
    Header,
    format_of,
    load_array,
    load_indices,
    load_layouts,
    new_directory,
    rank_folder,
    read_header,
    save_arrays,
    save_layouts,
    write_header,
)
from sparsecomm.topology import Topology

KIND: Final = "sparsecomm.graph"
VERSION: Final = 1
READS: Final = (1,)
SPLITS: Final = ("train", "val", "test")
_NEEDED: Final = {"dataset": dict, "matrix": dict, "topology": dict, "num_ranks": int, "method": str}


def is_graph(spec: str) -> bool:
    """Say whether `spec` is a graph directory."""
    return format_of(Path(spec)) == KIND


def save_graph(path: Path, dataset: Dataset, layouts: Layouts, topology: Topology, method: str) -> DatasetInfo:
    """Write a data set in one shard per rank.

    Args:
        path: the directory to make.
        dataset: the whole.
        layouts: who owns the nodes.
        topology: it was cut for.
        method: it was cut by.

    Raises:
        InputError: `path` exists and is not a graph directory.
    """
    info = DatasetInfo.of(dataset)
    nodes = layouts.rows.new_to_old()
    adjacency, features = renumber(dataset.adjacency, layouts), dataset.features[nodes]
    degrees = np.diff(adjacency.indptr)
    offsets = layouts.rows.offsets
    with new_directory(path, KIND) as folder:
        for rank in range(layouts.rows.num_ranks):
            first, last = offsets[rank : rank + 2]
            save_shard(folder, rank, adjacency, first, last)
            begin, end = adjacency.indptr[first], adjacency.indptr[last]
            mine = nodes[first:last]
            arrays = {name: getattr(dataset, name)[:, mine].astype(np.uint8) for name in SPLITS}
            arrays |= {"labels": dataset.labels[mine], "degrees": degrees[adjacency.indices[begin:end]]}
            save_arrays(rank_folder(folder, rank), "nodes", arrays)
            _save_features(rank_folder(folder, rank), features[first:last])
        save_layouts(folder, layouts)
        size = dataset.num_nodes
        matrix = {"name": info.name, "rows": size, "cols": size, "nnz": int(adjacency.nnz)}
        header: Header = {"dataset": asdict(info), "matrix": matrix | {"fingerprint": info.fingerprint}}
        header |= {"topology": topology.to_dict(), "num_ranks": topology.num_ranks, "method": method}
        write_header(folder, KIND, VERSION, header)
    return info


def load_graph_header(path: Path, num_ranks: int) -> tuple[Header, DatasetInfo]:
    """Read what a graph directory holds, and refuse one for another number of ranks.

    Raises:
        InputError: with what the directory is for and what was expected.
    """
    header = read_header(path, KIND, READS, _NEEDED)
    if header["num_ranks"] != num_ranks:
        raise InputError(
            f"graph {path} is cut for {header['num_ranks']} ranks, not {num_ranks}; use {header['num_ranks']} ranks "
            f"or cut it again for {num_ranks}"
        )
    try:
        return header, DatasetInfo(**header["dataset"])
    except TypeError as err:
        raise InputError(f"{path}: the header does not describe a data set ({err}); cut the graph again") from err


def load_graph_layouts(path: Path, header: Header) -> Layouts:
    """Read who owns the nodes.

    Raises:
        InputError: a file is missing or damaged, or fits another graph.
    """
    return load_layouts(path, header)


def load_adjacency(path: Path, layouts: Layouts, rank: int) -> tuple[csr_array[Any], npt.NDArray[Any]]:
    """Read the edges of the nodes of one rank, and the degree of the other end of each.

    Returns:
        (own nodes, all nodes) ones in new numbering, and (edges,) integers in CSR order.

    Raises:
        InputError: a file is missing or damaged.
    """
    rows, folder = load_shard(path, layouts, rank), rank_folder(path, rank)
    degrees = load_indices(folder, "nodes", "degrees")
    if degrees.shape != (rows.nnz,) or (degrees.size and degrees.min() < 1):
        raise InputError(f"{folder} does not hold the degrees of {rows.nnz} neighbours; cut the graph again")
    return rows, degrees


def load_features(path: Path, layouts: Layouts, rank: int, info: DatasetInfo, dtype: np.dtype[Any]) -> csr_array[Any]:
    """Read the features of the nodes of one rank, (own nodes, f).

    Raises:
        InputError: a file is missing or damaged.
    """
    folder, shape = rank_folder(path, rank), (len(layouts.rows.own_rows(rank)), info.features)
    indptr, indices = (load_indices(folder, "features", name) for name in ("indptr", "indices"))
    data = load_array(folder, "features", "data")
    fits = indptr.shape == (shape[0] + 1,) and indices.shape == data.shape == (int(indptr[-1]),) and indptr[0] == 0
    if not fits or (np.diff(indptr) < 0).any() or (indices.size and not 0 <= indices.min() <= indices.max() < shape[1]):
        raise InputError(f"{folder} does not hold {shape[0]} x {shape[1]} features; cut the graph again")
    return csr_array((data.astype(dtype), indices, indptr), shape=shape)


def load_nodes(path: Path, layouts: Layouts, rank: int, info: DatasetInfo, split: int) -> Nodes:
    """Read labels and one split of the nodes of one rank.

    Raises:
        InputError: a file is missing or damaged.
    """
    folder, count = rank_folder(path, rank), len(layouts.rows.own_rows(rank))
    labels = load_indices(folder, "nodes", "labels")
    masks = [load_array(folder, "nodes", name) for name in SPLITS]
    whole = labels.shape == (count,) and all(mask.shape == (info.splits, count) for mask in masks)
    if not whole or (count and not 0 <= labels.min() <= labels.max() < info.classes):
        raise InputError(f"{folder} does not hold labels and masks of {count} nodes; cut the graph again")
    return Nodes(labels.astype(np.int64), *(mask[split] == 1 for mask in masks))


def _save_features(folder: Path, features: csr_array[Any]) -> None:
    index = np.int32 if max(features.nnz, features.shape[1]) < 2**31 else np.int64
    parts = {"indptr": features.indptr.astype(index), "indices": features.indices.astype(index), "data": features.data}
    save_arrays(folder, "features", parts)
