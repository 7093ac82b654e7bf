"""Cutters `mtkahypar`, `mtkahypar-graph` and `mtkahypar-map`: multilevel hypergraph partitioning."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from sparsecomm.errors import InputError
from sparsecomm.partition.levels import Cut
from sparsecomm.partition.structure import Structure
from sparsecomm.typing import IntGlobal, IntRank

_MAX_TARGETS = 64


def cut_nets(structure: Structure, cut: Cut) -> IntRank:
    """Let nets touch few parts: the sum over nets of (parts touched - 1) is the rows that cross.

    Source: Gottesbueren, Heuer, Maas, Sanders, Schlag, "Scalable high-quality hypergraph partitioning", 2024.
    """
    return _partition(_hypergraph(structure, cut), cut, "KM1")


def cut_edges(structure: Structure, cut: Cut) -> IntRank:
    """Cut few edges of the graph."""
    return _partition(_graph(structure, cut), cut, "CUT")


def map_to_ranks(structure: Structure, cut: Cut) -> IntRank:
    """Let the Steiner trees of the edges on the machine be light.

    Raises:
        InputError: too many parts for the tables of this objective.

    Source: Heuer, "A direct k-way hypergraph partitioning algorithm for optimizing the Steiner tree metric", 2024.
    """
    if cut.num_parts > _MAX_TARGETS:
        raise InputError(f"method mtkahypar-map takes at most {_MAX_TARGETS} ranks, not {cut.num_parts}")
    context = _context(cut)
    context.set_mapping_parameters(cut.num_parts, cut.slack)
    _set_limits(context, structure, cut)
    one, other = np.triu_indices(cut.num_parts, 1)
    edges = list(zip(one.tolist(), other.tolist(), strict=True))
    target = _library().create_target_graph(
        context, cut.num_parts, len(edges), edges, cut.distances[one, other].tolist()
    )
    return _answer(_graph(structure, cut).map_onto_graph(target, context))


@cache
def _library() -> Any:
    """Start the library once; one thread, where equal seeds give equal answers."""
    import mtkahypar

    return mtkahypar.initialize(1, False)


def _context(cut: Cut) -> Any:
    import mtkahypar

    presets = mtkahypar.PresetType
    preset = (presets.DEFAULT, presets.DEFAULT, presets.DEFAULT, presets.QUALITY)[cut.request.effort]
    context = _library().context_from_preset(preset)
    mtkahypar.set_seed(cut.request.seed)
    context.logging = False
    return context


def _partition(hypergraph: Any, cut: Cut, objective: str) -> IntRank:
    import mtkahypar

    context = _context(cut)
    context.set_partitioning_parameters(cut.num_parts, cut.slack, getattr(mtkahypar.Objective, objective))
    if np.ptp(cut.shares) > 0:
        context.set_individual_target_block_weights(cut.limits(hypergraph.total_weight()))
    return _answer(hypergraph.partition(context))


def _set_limits(context: Any, structure: Structure, cut: Cut) -> None:
    if np.ptp(cut.shares) > 0:
        context.set_individual_target_block_weights(cut.limits(int(structure.weights.sum())))


def _answer(partitioned: Any) -> IntRank:
    return np.asarray(partitioned.get_partition(), dtype=np.int32)


def _hypergraph(structure: Structure, cut: Cut) -> Any:
    import mtkahypar

    nets, path = structure.model(cut.request.side), cut.folder / "nets.hgr"
    header = f"{nets.shape[0]} {nets.shape[1]} 10\n"
    _write_lists(path, header, nets, None, _weights(structure))
    found = _library().hypergraph_from_file(str(path), _context(cut), mtkahypar.FileFormat.HMETIS)
    path.unlink()
    return found


def _graph(structure: Structure, cut: Cut) -> Any:
    import mtkahypar

    graph, path = structure.graph(), cut.folder / "edges.graph"
    _write_lists(path, f"{graph.shape[0]} {graph.nnz // 2} 10\n", graph, _weights(structure), None)
    found = _library().graph_from_file(str(path), _context(cut), mtkahypar.FileFormat.METIS)
    path.unlink()
    return found


def _weights(structure: Structure) -> IntGlobal:
    return structure.weights if structure.weights.any() else np.ones_like(structure.weights)


def _write_lists(
    path: Path, header: str, lists: csr_array[Any], heads: IntGlobal | None, tail: IntGlobal | None
) -> None:
    """Write `header`, each list after its head, then one line for each of `tail`."""
    from sparsecomm.partition._text import text_of_lists

    none = np.empty(0, np.int64)
    with path.open("wb") as file:
        file.write(header.encode())
        text_of_lists(lists.indptr, lists.indices, none if heads is None else heads).tofile(file)
        if tail is not None:
            starts = np.zeros(tail.size + 1, lists.indptr.dtype)
            text_of_lists(starts, np.empty(0, lists.indices.dtype), tail).tofile(file)
