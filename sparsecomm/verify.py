"""The rules of a stage list, checked by pushing global row ids through the slots."""

from __future__ import annotations

import numpy as np

from sparsecomm.errors import PlanError
from sparsecomm.plan import Plan, Stage, any_at
from sparsecomm.table import falls, run_starts
from sparsecomm.typing import Bools, IntGlobal


def verify_plan(plan: Plan) -> None:
    """Check every rule; see `Plan.verify`."""
    held = plan.held_rows()
    # One more entry, found by place -1, stands for all own rows: there from the beginning, written by nobody.
    written, read = np.zeros(held.size + 1, dtype=np.bool_), np.zeros(held.size + 1, dtype=np.bool_)
    written[-1] = True
    for number, stage in enumerate(plan.stages):
        _check_shape(plan, number, stage)
        src, dst = plan.held_place(stage.src, stage.send), plan.held_place(stage.dst, stage.recv)
        rows = plan.rows_in(dst, stage.dst, stage.recv, held)
        _refuse(number, stage, ~written[src], "reads a slot that nothing has written yet")
        other = plan.rows_in(src, stage.src, stage.send, held) != rows
        _refuse(number, stage, other, "copies a row into the slot of another row")
        _refuse(number, stage, _mark(written, dst), "writes a slot a second time")
        later = falls([stage.dst, stage.src, rows])
        _refuse(number, stage, later, "is out of the canonical order (dst, src, row)")
        read[src] = True
    _check_rows(plan)
    _check_end(plan, held, written[:-1], read[:-1])
    _check_transit(plan)


def _check_shape(plan: Plan, number: int, stage: Stage) -> None:
    if not 0 <= stage.level < plan.topology.num_levels:
        raise PlanError(f"stage {number} is of level {stage.level}, but levels are 0 .. {plan.topology.num_levels - 1}")
    if not (stage.src.shape == stage.dst.shape == stage.send.shape == stage.recv.shape and stage.src.ndim == 1):
        raise PlanError(f"stage {number}: its index arrays differ in length")
    num_slots = np.diff(plan.slot_start())
    for ends, slots in ((stage.src, stage.send), (stage.dst, stage.recv)):
        _refuse(number, stage, (ends < 0) | (ends >= plan.num_ranks), "names a rank that does not exist")
        _refuse(number, stage, (slots < 0) | (slots >= num_slots[ends]), "names a slot that does not exist")
    _refuse(number, stage, stage.src == stage.dst, "copies a row to the rank that holds it")
    wrong = plan.topology.level_of(stage.src, stage.dst) != stage.level
    _refuse(number, stage, wrong, f"does not belong to level {plan.topology.levels[stage.level].name}")


def _check_rows(plan: Plan) -> None:
    """Check that ghosts ascend and are not own, and that staging lies by (stage, row)."""
    rank = np.repeat(np.arange(plan.num_ranks), np.diff(plan.ghost_indptr))
    same = rank[1:] == rank[:-1]
    back = any_at(same & (np.diff(plan.ghost_rows) <= 0))
    if back >= 0:
        raise PlanError(
            f"ghost rows must ascend strictly, but on rank {rank[back]} "
            f"{plan.ghost_rows[back + 1]} follows {plan.ghost_rows[back]}"
        )
    own = (plan.ghost_rows >= plan.offsets[rank]) & (plan.ghost_rows < plan.offsets[rank + 1])
    if own.any():
        raise PlanError(f"rank {rank[any_at(own)]} has its own row {plan.ghost_rows[any_at(own)]} as a ghost")
    start = plan.held_start()
    first = start[:-1] + np.diff(plan.ghost_indptr)
    writer = np.full(int(start[-1]), -1, dtype=np.int64)
    for number, stage in enumerate(plan.stages):
        writer[plan.held_place(stage.dst, stage.recv)] = number
    counts = np.diff(plan.staging_indptr)
    place = np.repeat(first - plan.staging_indptr[:-1], counts) + np.arange(plan.staging_rows.size)
    rank, stage_of = np.repeat(np.arange(plan.num_ranks), counts), writer[place]
    early = any_at(falls([rank, stage_of, plan.staging_rows]))
    if early >= 0:
        raise PlanError(f"staging slots of rank {rank[early]} are not ordered by (stage, row)")


def _check_end(plan: Plan, held: IntGlobal, written: Bools, read: Bools) -> None:
    empty = any_at(~written)
    if empty >= 0:
        rank, slot = _slot_of(plan, empty)
        raise PlanError(f"rank {rank} never receives row {held[empty]} (slot {slot})")
    start = plan.held_start()
    staging = np.arange(held.size) >= np.repeat(start[:-1] + np.diff(plan.ghost_indptr), np.diff(start))
    idle = any_at(staging & ~read)
    if idle >= 0:
        rank, slot = _slot_of(plan, idle)
        raise PlanError(f"rank {rank} holds row {held[idle]} in staging slot {slot} and never passes it on")


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


def _slot_of(plan: Plan, place: int) -> tuple[int, int]:
    """Return the rank and the slot of a place in `held_rows`."""
    start = plan.held_start()
    rank = int(np.searchsorted(start, place, side="right")) - 1
    return rank, place - int(start[rank]) + int(np.diff(plan.offsets)[rank])


def _mark(written: Bools, place: IntGlobal) -> Bools:
    """Mark places as written and return a mask of those that were before, or that are named twice."""
    again, before = written[place], np.count_nonzero(written)
    written[place] = True
    if not again.any() and np.count_nonzero(written) - before < place.size:
        again = np.bincount(place, minlength=written.size)[place] > 1
    return again


def _refuse(number: int, stage: Stage, mask: Bools, what: str) -> None:
    """Raise for the first copy of a stage that breaks a rule."""
    i = any_at(mask)
    if i >= 0:
        raise PlanError(
            f"stage {number}, copy {i}: slot {stage.send[i]} of rank {stage.src[i]} -> slot {stage.recv[i]} "
            f"of rank {stage.dst[i]} {what}"
        )
