"""Cutter `twins`: rows with the same columns stay together, and what is left is small."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_array

from sparsecomm.partition.levels import Cut
from sparsecomm.partition.patterns import near_classes, pattern_classes
from sparsecomm.partition.structure import Structure
from sparsecomm.table import number
from sparsecomm.typing import IntGlobal, IntRank

_PIECES = 32  # groups that a part is made of, at least


def cut_groups(structure: Structure, cut: Cut) -> IntRank:
    """Group twins and near twins, then cut few of the edges between groups, weighed by how many they stand for.

    Source: sparse networks made of residue classes (RadiX-Net) have no other structure than this one.
    """
    import pymetis

    group = vertex_groups(structure, cut)
    graph = _quotient(structure.graph(), group)
    weights = np.bincount(group, structure.weights).astype(np.int64)
    if weights.size <= cut.num_parts:
        return (group % cut.num_parts).astype(np.int32)
    found = pymetis.part_graph(
        cut.num_parts,
        xadj=graph.indptr.astype(np.int64),
        adjncy=graph.indices.astype(np.int64),
        eweights=graph.data.astype(np.int64),
        vweights=weights if weights.any() else np.ones_like(weights),
        tpwgts=cut.shares.tolist(),
        recursive=False,
        options=pymetis.Options(ufactor=max(1, int(1000 * cut.slack)), seed=cut.request.seed),
    )
    return np.asarray(found.vertex_part, dtype=np.int32)[group]


def vertex_groups(structure: Structure, cut: Cut) -> IntGlobal:
    """Return the group of every vertex, counted from 0; none so heavy that it could not be placed."""
    group = _classes(structure.pattern, cut.request.seed)
    if not structure.square:
        cols = _classes(csr_array(structure.pattern.T.tocsr()), cut.request.seed)
        group = np.concatenate([group, cols + int(group.max(initial=-1)) + 1])
    lightest_part = float(cut.shares.min()) * structure.weights.sum()
    order = np.argsort(group, kind="stable")
    before = np.cumsum(structure.weights[order]) - structure.weights[order]
    starts = np.searchsorted(group[order], np.arange(int(group.max(initial=-1)) + 1))
    inside = before - before[starts][group[order]]
    piece = np.empty_like(group)
    piece[order] = (inside / max(lightest_part / _PIECES, 1)).astype(np.int64)
    return number([group, piece])


def _classes(pattern: csr_array[Any], seed: int) -> IntGlobal:
    equal = pattern_classes(pattern)
    if 2 * int(equal.max(initial=-1)) < equal.size:
        return equal
    return near_classes(pattern, seed)


def _quotient(graph: csr_array[Any], group: IntGlobal) -> csr_array[Any]:
    """Return the graph of the groups; an edge weighs what it stands for."""
    edges = graph.tocoo()
    one, other = group[edges.row], group[edges.col]
    apart = one != other
    size = int(group.max()) + 1
    return csr_array((np.ones(np.count_nonzero(apart), np.int64), (one[apart], other[apart])), shape=(size, size))
