"""The rules of a stage list, checked by pushing global row ids through the slots."""

from __future__ import annotations

import numpy as np

from sparsecomm.errors import PlanError
from sparsecomm.plan import Plan, Stage, any_at
from sparsecomm.table import run_starts
from sparsecomm.typing import Bools, IntGlobal


def verify_plan(plan: Plan) -> None:
    """Check every rule; see `Plan.verify`."""
    start, rows = plan.slot_start(), plan.slot_rows()
    written, read = _own_mask(plan, start, rows.size), np.zeros(rows.size, dtype=np.bool_)
    for number, stage in enumerate(plan.stages):
        _check_shape(plan, number, stage, start)
        src, dst = start[stage.src] + stage.send, start[stage.dst] + stage.recv
        _refuse(number, stage, ~written[src], "reads a slot that nothing has written yet")
        _refuse(number, stage, rows[src] != rows[dst], "copies a row into the slot of another row")
        _refuse(number, stage, written[dst] | _repeated(dst, rows.size), "writes a slot a second time")
        _check_order(number, stage, rows[dst])
        written[dst] = True
        read[src] = True
    _check_rows(plan)
    _check_end(plan, start, written, read)
    _check_transit(plan)


def _own_mask(plan: Plan, start: IntGlobal, num_slots: int) -> Bools:
    counts = np.diff(plan.offsets)
    own = np.zeros(num_slots, dtype=np.bool_)
    own[np.repeat(start[:-1] - plan.offsets[:-1], counts) + np.arange(int(plan.offsets[-1]))] = True
    return own


def _check_shape(plan: Plan, number: int, stage: Stage, start: IntGlobal) -> None:
    if not 0 <= stage.level < plan.topology.num_levels:
        raise PlanError(f"stage {number} is of level {stage.level}, but levels are 0 .. {plan.topology.num_levels - 1}")
    if not (stage.src.shape == stage.dst.shape == stage.send.shape == stage.recv.shape and stage.src.ndim == 1):
        raise PlanError(f"stage {number}: its index arrays differ in length")
    for ends, slots in ((stage.src, stage.send), (stage.dst, stage.recv)):
        _refuse(number, stage, (ends < 0) | (ends >= plan.num_ranks), "names a rank that does not exist")
        _refuse(number, stage, (slots < 0) | (slots >= np.diff(start)[ends]), "names a slot that does not exist")
    _refuse(number, stage, stage.src == stage.dst, "copies a row to the rank that holds it")
    wrong = plan.topology.level_of(stage.src, stage.dst) != stage.level
    _refuse(number, stage, wrong, f"does not belong to level {plan.topology.levels[stage.level].name}")


def _check_order(number: int, stage: Stage, rows: IntGlobal) -> None:
    later = np.zeros(stage.num_copies, dtype=np.bool_)
    if stage.num_copies:
        order = np.lexsort((rows, stage.src, stage.dst))
        later = order != np.arange(order.size)
    _refuse(number, stage, later, "is out of the canonical order (dst, src, row)")


def _check_rows(plan: Plan) -> None:
    """Check that ghosts ascend and are not own, and that staging lies by (stage, row)."""
    rank = np.repeat(np.arange(plan.num_ranks), np.diff(plan.ghost_indptr))
    same = rank[1:] == rank[:-1]
    falls = any_at(same & (np.diff(plan.ghost_rows) <= 0))
    if falls >= 0:
        raise PlanError(
            f"ghost rows must ascend strictly, but on rank {rank[falls]} "
            f"{plan.ghost_rows[falls + 1]} follows {plan.ghost_rows[falls]}"
        )
    own = (plan.ghost_rows >= plan.offsets[rank]) & (plan.ghost_rows < plan.offsets[rank + 1])
    if own.any():
        raise PlanError(f"rank {rank[any_at(own)]} has its own row {plan.ghost_rows[any_at(own)]} as a ghost")
    start = plan.slot_start()
    first = start[:-1] + np.diff(plan.offsets) + np.diff(plan.ghost_indptr)
    writer = np.full(int(start[-1]), -1, dtype=np.int64)
    for number, stage in enumerate(plan.stages):
        writer[start[stage.dst] + stage.recv] = number
    counts = np.diff(plan.staging_indptr)
    place = np.repeat(first - plan.staging_indptr[:-1], counts) + np.arange(plan.staging_rows.size)
    rank, stage_of = np.repeat(np.arange(plan.num_ranks), counts), writer[place]
    order = np.lexsort((plan.staging_rows, stage_of, rank))
    if (order != np.arange(order.size)).any():
        raise PlanError(
            f"staging slots of rank {rank[any_at(order != np.arange(order.size))]} are not ordered by (stage, row)"
        )


def _check_end(plan: Plan, start: IntGlobal, written: Bools, read: Bools) -> None:
    empty = any_at(~written)
    if empty >= 0:
        rank, slot = _place(start, empty)
        raise PlanError(f"rank {rank} never receives row {plan.slot_rows()[empty]} (slot {slot})")
    counts = np.diff(plan.offsets) + np.diff(plan.ghost_indptr)
    staging = np.arange(written.size) >= np.repeat(start[:-1] + counts, np.diff(start))
    idle = any_at(staging & ~read)
    if idle >= 0:
        rank, slot = _place(start, idle)
        raise PlanError(f"rank {rank} holds row {plan.slot_rows()[idle]} in staging slot {slot} and never passes it on")


def _check_transit(plan: Plan) -> None:
    """Check that a row in transit has no other slot on its rank; a hub that uses it keeps it as a ghost."""
    num_rows, ranks = int(plan.offsets[-1]), np.arange(plan.num_ranks)
    rank, row = np.repeat(ranks, np.diff(plan.staging_indptr)), plan.staging_rows
    ghosts = np.repeat(ranks, np.diff(plan.ghost_indptr)) * num_rows + plan.ghost_rows
    keys = np.sort(np.concatenate([ghosts, rank * num_rows + row]))
    own = any_at((row >= plan.offsets[rank]) & (row < plan.offsets[rank + 1]))
    twice = any_at(~run_starts([keys]))
    if own >= 0 or twice >= 0:
        where = (rank[own], row[own]) if own >= 0 else divmod(int(keys[twice]), num_rows)
        raise PlanError(f"rank {where[0]} holds row {where[1]} in staging although it has another slot for it")


def _place(start: IntGlobal, slot: int) -> tuple[int, int]:
    rank = int(np.searchsorted(start, slot, side="right")) - 1
    return rank, slot - int(start[rank])


def _repeated(slots: IntGlobal, num_slots: int) -> Bools:
    """Return a mask of the entries that name a slot that an earlier or later entry names too."""
    if slots.size == 0:
        return np.zeros(0, dtype=np.bool_)
    ordered = np.sort(slots)
    if run_starts([ordered]).all():
        return np.zeros(slots.size, dtype=np.bool_)
    return np.bincount(slots, minlength=num_slots)[slots] > 1


def _refuse(number: int, stage: Stage, mask: Bools, what: str) -> None:
    """Raise for the first copy of a stage that breaks a rule."""
    i = any_at(mask)
    if i >= 0:
        raise PlanError(
            f"stage {number}, copy {i}: slot {stage.send[i]} of rank {stage.src[i]} -> slot {stage.recv[i]} "
            f"of rank {stage.dst[i]} {what}"
        )
