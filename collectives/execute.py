"""A global plan executed in one process: what every exchange is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparsecomm.collectives.wire import Rows, WireDtype, wires_of
from sparsecomm.errors import InputError
from sparsecomm.plan import Plan
from sparsecomm.typing import IntGlobal


def execute(plan: Plan, xs: Sequence[Rows], *, wire_dtype: WireDtype = None) -> list[Rows]:
    """Run a plan forward: give every rank its ghost rows.

    Args:
        plan: any plan that `verify` accepts.
        xs: for each rank the (num_own, k) rows that it owns, all of one dtype; not modified.
        wire_dtype: rows are rounded to it in every copy, as in `Exchange`; None keeps them as they are.

    Returns:
        For each rank its (num_ghost, k) ghost rows.

    Raises:
        InputError: a block does not have the rows of its rank.
    """
    given = _join(xs, np.diff(plan.offsets), "own")
    own, ghost, start = _places(plan)
    slots = np.empty((int(start[-1]), given.shape[1]), dtype=given.dtype)
    slots[own] = given
    wires = wires_of(wire_dtype, slots.dtype, plan.topology.num_levels)
    for stage in plan.stages:
        slots[start[stage.dst] + stage.recv] = wires[stage.level].rounded(slots[start[stage.src] + stage.send])
    return np.split(slots[ghost], plan.ghost_indptr[1:-1])


def execute_reverse(
    plan: Plan, ghosts: Sequence[Rows], owns: Sequence[Rows] | None = None, *, wire_dtype: WireDtype = None
) -> list[Rows]:
    """Run a plan in reverse: give every owner the sum of the partial rows that its users hold.

    Additions happen in the canonical order, so the sums are those of `Exchange` bit for bit.

    Args:
        plan: any plan that `verify` accepts.
        ghosts: for each rank (num_ghost, k) partial rows, all of one dtype; not modified.
        owns: for each rank (num_own, k) rows that the sums are added to; None means zeros. Not modified.
        wire_dtype: rows are rounded to it in every copy, as in `Exchange`; None keeps them as they are.

    Returns:
        For each rank its (num_own, k) rows.

    Raises:
        InputError: a block does not have the rows of its rank.

    Source: transpose of `execute`; <execute(x), y> == <x, execute_reverse(y)>.
    """
    given = _join(ghosts, np.diff(plan.ghost_indptr), "ghost")
    own, ghost, start = _places(plan)
    # The negative zero is the one value to which adding x gives x bit for bit.
    slots = np.full((int(start[-1]), given.shape[1]), np.negative(np.zeros((), dtype=given.dtype)))
    touched = np.zeros(len(slots), dtype=np.bool_)
    wires = wires_of(wire_dtype, slots.dtype, plan.topology.num_levels)
    slots[ghost] = given
    for stage in reversed(plan.stages):
        sums, partials = start[stage.src] + stage.send, start[stage.dst] + stage.recv
        touched[sums] = True
        # Copies of a stage are ordered by dst, which is the source here, and add.at goes through them in order.
        np.add.at(slots, sums, wires[stage.level].rounded(slots[partials]))
    result = np.zeros_like(slots[own]) if owns is None else _join(owns, np.diff(plan.offsets), "own").copy()
    rows = np.flatnonzero(touched[own])
    result[rows] = slots[own[rows]] if owns is None else result[rows] + slots[own[rows]]
    return np.split(result, plan.offsets[1:-1])


def _join(blocks: Sequence[Rows], counts: IntGlobal, noun: str) -> Rows:
    if len(blocks) != counts.size or any(len(b) != n for b, n in zip(blocks, counts, strict=True)):
        shapes = [np.shape(block) for block in blocks[:8]]
        raise InputError(f"the {noun} blocks must have {counts.tolist()[:8]} ... rows; they are {shapes} ...")
    return np.concatenate(blocks)


def _places(plan: Plan) -> tuple[IntGlobal, IntGlobal, IntGlobal]:
    """Return where own rows and ghosts lie when the slots of all ranks are laid end to end, and the ranks' starts."""
    start, counts = plan.slot_start(), np.diff(plan.offsets)
    own = _spread(start[:-1], plan.offsets)
    return own, _spread(start[:-1] + counts, plan.ghost_indptr), start


def _spread(begin: IntGlobal, indptr: IntGlobal) -> IntGlobal:
    """Return the ranges `begin[p] .. begin[p] + indptr[p + 1] - indptr[p] - 1` one after another."""
    return np.repeat(begin - indptr[:-1], np.diff(indptr)) + np.arange(int(indptr[-1]))
