"""Cutter `kaminpar`: deep multilevel graph partitioning."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sparsecomm.partition.levels import Cut
from sparsecomm.partition.structure import Structure
from sparsecomm.typing import IntRank

_HEADER = 3


def cut_edges(structure: Structure, cut: Cut) -> IntRank:
    """Cut few edges of the graph; runs on one thread, where equal seeds give equal answers.

    Source: Gottesbueren, Heuer, Sanders, Seemaier, "Deep multilevel graph partitioning", 2021, through kaminpar.
    """
    import kaminpar

    path = cut.folder / "graph.bin"
    _write_parhip(path, structure)
    graph = kaminpar.load_graph(str(path), kaminpar.GraphFileFormat.PARHIP)
    path.unlink()
    contexts = (kaminpar.fast_context, kaminpar.default_context, kaminpar.eco_context, kaminpar.strong_context)
    solver = kaminpar.KaMinPar(1, contexts[cut.request.effort]())
    kaminpar.reseed(cut.request.seed)
    limits = cut.limits(max(int(structure.weights.sum()), structure.num_vertices if not structure.weights.any() else 1))
    return np.asarray(solver.compute_partition(graph, limits), dtype=np.int32)


def _write_parhip(path: Path, structure: Structure) -> None:
    """Write a graph with vertex weights and without edge weights; offsets count bytes from the start of the file."""
    graph = structure.graph()
    weights = structure.weights if structure.weights.any() else np.ones_like(structure.weights)
    first = 8 * (_HEADER + graph.shape[0] + 1)
    with path.open("wb") as file:
        np.array([1, graph.shape[0], graph.nnz], dtype=np.uint64).tofile(file)
        (graph.indptr.astype(np.uint64) * np.uint64(8) + np.uint64(first)).tofile(file)
        graph.indices.astype(np.uint64).tofile(file)
        weights.astype(np.int64).tofile(file)
