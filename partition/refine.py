"""Moves vertices between parts while fewer rows cross, by the plan that will run: a cover, not a cut."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_array

from sparsecomm.partition.service import by_cover, by_use
from sparsecomm.partition.structure import Structure
from sparsecomm.typing import Floats, IntGlobal, IntRank

_MAX_COUNTS = 1 << 29  # entries of the table nets x parts: 2 GiB


def refine(
    structure: Structure,
    part: IntRank,
    weights: IntGlobal,
    limits: IntGlobal,
    *,
    seed: int,
    rounds: int,
    gather: bool = False,
) -> IntRank:
    """Lower the rows that cross between parts, and bring parts beyond their limits back.

    Every round fixes how the nonzeros are served, which makes the rows that cross the nets that parts share, and
    moves vertices while that falls. Serving anew can then only lower it further.

    Args:
        structure: what is split.
        part: (num_vertices,) of each vertex.
        weights: (num_vertices, resources).
        limits: (parts, resources) of the sums of `weights`.
        seed: of the order in which vertices are looked at.
        rounds: at most; it ends where nothing moves.
        gather: rows of X only, as for plans that never send partial rows.

    Returns:
        The new part of each vertex; `part` is not changed.

    Source: Fiduccia and Mattheyses 1982 (gains), without their hill climbing; covers as in SHIRO 2025.
    """
    part, rng = part.copy(), np.random.default_rng(seed)
    if limits.shape[0] < 2 or structure.pattern.nnz == 0 or 2 * part.size * limits.shape[0] > _MAX_COUNTS:
        return part
    price = np.ones(limits.shape[0])
    for number in range(rounds):
        if gather:
            service = None
        else:
            service = by_cover(structure, part, len(limits)) if number > 1 else by_use(structure, part, len(limits))
        if _descend(structure.nets(service), part, weights, limits, price, rng) == 0 and number > 2:
            break
    return part


def _descend(
    nets: csr_array[Any],
    part: IntRank,
    weights: IntGlobal,
    limits: IntGlobal,
    price: Floats,
    rng: np.random.Generator,
    passes: int = 4,
) -> int:
    """Move vertices until a pass moves few; return how many moved in all."""
    from sparsecomm.partition._loops import count_pins, move_vertices

    of_vertex = csr_array(nets.T.tocsr())
    counts = count_pins(nets.indptr, nets.indices, part, limits.shape[0])
    loads = part_loads(part, weights, limits.shape[0])
    total = 0
    for _ in range(passes):
        order = rng.permutation(part.size)
        moved = move_vertices(order, of_vertex.indptr, of_vertex.indices, counts, part, weights, loads, limits, price)
        total += moved
        if 1000 * moved < part.size:
            break
    return total


def part_loads(part: IntRank, weights: IntGlobal, num_parts: int) -> IntGlobal:
    """Return (parts, resources): the sum of the weights of each part."""
    sums = [np.bincount(part, column, num_parts) for column in weights.T]
    return np.stack(sums, axis=1).astype(np.int64)
