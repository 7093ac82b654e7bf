"""Partitioner `metis`: least edge cut of the symmetrised pattern, balanced in nonzeros."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
from scipy.sparse import block_array, csr_array

from sparsecomm.errors import InputError, SparseCommError
from sparsecomm.layout import Layout, Layouts
from sparsecomm.partition.child import Arrays, call_apart
from sparsecomm.partition.registry import Objective, register_partitioner
from sparsecomm.topology import Topology
from sparsecomm.typing import IntGlobal


def partition_metis(
    matrix: csr_array[Any], topology: Topology, *, objective: Objective | None, balance: float, seed: int
) -> Layouts:
    """Cut the graph of a square matrix, or the bipartite graph of a rectangular one, with METIS.

    A row weighs its nonzeros. In the bipartite graph rows and columns are vertices and columns weigh nothing.

    Raises:
        InputError: pymetis is not installed.
        SparseCommError: METIS failed or its answer is not a partition.

    Source: Karypis and Kumar 1998, through pymetis.
    """
    if find_spec("pymetis") is None:
        raise InputError("partition method 'metis' needs pymetis; install it with: pip install 'sparsecomm[partition]'")
    square, num_ranks = matrix.shape[0] == matrix.shape[1], topology.num_ranks
    graph = _symmetric(matrix) if square else _bipartite(matrix)
    weights = np.zeros(graph.shape[0], dtype=np.int64)
    weights[: matrix.shape[0]] = np.diff(matrix.indptr)
    parts = _cut(graph, weights, num_ranks, balance, seed)
    rows = Layout.from_owners(parts[: matrix.shape[0]], num_ranks)
    return Layouts(rows, rows if square else Layout.from_owners(parts[matrix.shape[0] :], num_ranks))


def _symmetric(matrix: csr_array[Any]) -> csr_array[Any]:
    """Return the pattern of A + A.T without its diagonal."""
    pattern = csr_array((np.ones(matrix.nnz, np.int8), matrix.indices, matrix.indptr), shape=matrix.shape)
    both = (pattern + pattern.T).tocoo()
    off = both.row != both.col
    return csr_array((both.data[off], (both.row[off], both.col[off])), shape=both.shape)


def _bipartite(matrix: csr_array[Any]) -> csr_array[Any]:
    pattern = csr_array((np.ones(matrix.nnz, np.int8), matrix.indices, matrix.indptr), shape=matrix.shape)
    return csr_array(block_array([[None, pattern], [pattern.T, None]], format="csr"))


def _cut(graph: csr_array[Any], weights: IntGlobal, num_ranks: int, balance: float, seed: int) -> Any:
    if num_ranks == 1 or graph.shape[0] == 0:
        return np.zeros(graph.shape[0], dtype=np.int32)
    arrays = {
        "indptr": graph.indptr.astype(np.int64),
        "indices": graph.indices.astype(np.int64),
        "weights": weights if weights.any() else np.ones_like(weights),
        "options": np.array([num_ranks, round(1000 * (balance - 1)), seed], dtype=np.int64),
    }
    parts = call_apart("sparsecomm.partition.metis:cut_graph", arrays)["parts"]
    if parts.shape != (graph.shape[0],) or parts.min() < 0 or parts.max() >= num_ranks:
        raise SparseCommError(f"METIS gave no partition of {graph.shape[0]} vertices into {num_ranks} parts")
    return parts


def cut_graph(arrays: Arrays) -> Arrays:
    """Call METIS on a symmetric graph in CSR form; runs in the child process."""
    import pymetis

    num_parts, ufactor, seed = (int(value) for value in arrays["options"])
    adjacency = pymetis.CSRAdjacency(arrays["indptr"], arrays["indices"])
    options = pymetis.Options(ufactor=max(1, ufactor), seed=seed)
    cut = pymetis.part_graph(num_parts, adjacency, vweights=arrays["weights"], recursive=False, options=options)
    return {"parts": np.asarray(cut.vertex_part, dtype=np.int32)}


register_partitioner("metis", partition_metis)
