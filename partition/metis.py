"""Cutters `metis` and `metis-vol`: multilevel graph partitioning."""

from __future__ import annotations

import numpy as np

from sparsecomm.partition.levels import Cut
from sparsecomm.partition.structure import Structure
from sparsecomm.typing import IntRank


def cut_edges(structure: Structure, cut: Cut) -> IntRank:
    """Cut few edges of the graph.

    Source: Karypis and Kumar 1998, through pymetis.
    """
    return _cut(structure, cut, volume=False)


def cut_volume(structure: Structure, cut: Cut) -> IntRank:
    """Let few vertices have neighbours in other parts, each part counted once."""
    return _cut(structure, cut, volume=True)


def _cut(structure: Structure, cut: Cut, volume: bool) -> IntRank:
    import pymetis

    graph = structure.graph()
    # Where pymetis gets int64, METIS's own type, it copies nothing.
    adjacency = pymetis.CSRAdjacency(graph.indptr.astype(np.int64), graph.indices.astype(np.int64))
    weights = structure.weights if structure.weights.any() else np.ones_like(structure.weights)
    objective = pymetis.ObjType.VOL if volume else pymetis.ObjType.CUT
    options = pymetis.Options(ufactor=max(1, int(1000 * cut.slack)), seed=cut.request.seed, objtype=objective)
    found = pymetis.part_graph(
        cut.num_parts, adjacency, vweights=weights, tpwgts=cut.shares.tolist(), recursive=False, options=options
    )
    return np.asarray(found.vertex_part, dtype=np.int32)
