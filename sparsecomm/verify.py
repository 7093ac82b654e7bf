"""The rules of a stage list, checked by pushing global row ids through the slots."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from sparsecomm.errors import PlanError
from sparsecomm.plan import Plan, Stage, any_at
from sparsecomm.table import PART_ROWS, falls, rank_parts, run_starts
from sparsecomm.typing import Bools, IntGlobal, IntRank


def verify_plan(plan: Plan) -> None:
    """Check every rule; see `Plan.verify`."""
    held = plan.held_rows()
    # One more entry, found by place -1, stands for all own rows: there from the beginning, written by nobody.
    written, read = np.zeros(held.size + 1, dtype=np.bool_), np.zeros(held.size + 1, dtype=np.bool_)
    written[-1] = True
    writer = np.full(held.size + 1, -1, dtype=np.int32)
    for number, stage in enumerate(plan.stages):
        _check_shape(plan, number, stage)
        for part in _parts(number, stage, overlap=1):
            _check_part(plan, part)
            _check_copies(plan, part, held, written, read)
        for part in _parts(number, stage):
            dst = plan.held_place(part.stage.dst, part.stage.recv)
            _refuse(part, _mark(written, dst), "writes a slot a second time")
            writer[dst] = number
    start = plan.held_start()
    for ranks in rank_parts(start):
        _check_ghosts(plan, ranks)
        _check_staging(plan, ranks, writer[:-1])
    _check_end(plan, held, written[:-1], read[:-1])


class _Part(NamedTuple):
    """Neighbouring copies of a stage, from copy `first` on."""

    number: int
    first: int
    stage: Stage

    def take(self, copies: slice) -> _Part:
        columns = (getattr(self.stage, name)[copies] for name in ("src", "dst", "send", "recv"))
        return _Part(self.number, copies.start, Stage(self.stage.level, *columns))


def _parts(number: int, stage: Stage, overlap: int = 0) -> Iterator[_Part]:
    """Yield a stage in parts that stay in a core's cache, each with `overlap` copies of the one before."""
    whole = _Part(number, 0, stage)
    for begin in range(0, max(1, stage.num_copies), PART_ROWS):
        yield whole.take(slice(max(0, begin - overlap), begin + PART_ROWS))


def _check_shape(plan: Plan, number: int, stage: Stage) -> None:
    if not 0 <= stage.level < plan.topology.num_levels:
        raise PlanError(f"stage {number} is of level {stage.level}, but levels are 0 .. {plan.topology.num_levels - 1}")
    if not (stage.src.shape == stage.dst.shape == stage.send.shape == stage.recv.shape and stage.src.ndim == 1):
        raise PlanError(f"stage {number}: its index arrays differ in length")


def _check_part(plan: Plan, part: _Part) -> None:
    """Check that ranks and slots exist and belong to the level."""
    stage, num_slots = part.stage, np.diff(plan.slot_start())
    for ends, slots in ((stage.src, stage.send), (stage.dst, stage.recv)):
        _refuse(part, (ends < 0) | (ends >= plan.num_ranks), "names a rank that does not exist")
        _refuse(part, (slots < 0) | (slots >= num_slots[ends]), "names a slot that does not exist")
    _refuse(part, stage.src == stage.dst, "copies a row to the rank that holds it")
    wrong = plan.topology.level_of(stage.src, stage.dst) != stage.level
    _refuse(part, wrong, f"does not belong to level {plan.topology.levels[stage.level].name}")


def _check_copies(plan: Plan, part: _Part, held: IntGlobal, written: Bools, read: Bools) -> None:
    """Check that rows are there, go to their slots and lie in order, and mark what is read."""
    stage = part.stage
    src, dst = plan.held_place(stage.src, stage.send), plan.held_place(stage.dst, stage.recv)
    rows = plan.rows_in(dst, stage.dst, stage.recv, held)
    _refuse(part, ~written[src], "reads a slot that nothing has written yet")
    other = plan.rows_in(src, stage.src, stage.send, held) != rows
    _refuse(part, other, "copies a row into the slot of another row")
    later = falls([stage.dst, stage.src, rows])
    _refuse(part, later, "is out of the canonical order (dst, src, row)")
    read[src] = True


def _check_ghosts(plan: Plan, ranks: range) -> None:
    """Check that ghosts ascend and are not own."""
    rank, ghosts = _rows_of(ranks, plan.ghost_indptr, plan.ghost_rows)
    back = any_at((rank[1:] == rank[:-1]) & (np.diff(ghosts) <= 0))
    if back >= 0:
        raise PlanError(
            f"ghost rows must ascend strictly, but on rank {rank[back]} {ghosts[back + 1]} follows {ghosts[back]}"
        )
    own = any_at((ghosts >= plan.offsets[rank]) & (ghosts < plan.offsets[rank + 1]))
    if own >= 0:
        raise PlanError(f"rank {rank[own]} has its own row {ghosts[own]} as a ghost")


def _check_staging(plan: Plan, ranks: range, writer: IntRank) -> None:
    """Check that rows in transit lie by (stage, row), given the stage that wrote every slot, and have no other slot.

    A hub that uses a row keeps it as a ghost.
    """
    rank, rows = _rows_of(ranks, plan.staging_indptr, plan.staging_rows)
    first = plan.held_start()[:-1] + np.diff(plan.ghost_indptr) - plan.staging_indptr[:-1]
    place = first[rank] + np.arange(rows.size) + plan.staging_indptr[ranks.start]
    early = any_at(falls([rank, writer[place], rows]))
    if early >= 0:
        raise PlanError(f"staging slots of rank {rank[early]} are not ordered by (stage, row)")
    num_rows, (ghost_rank, ghosts) = int(plan.offsets[-1]), _rows_of(ranks, plan.ghost_indptr, plan.ghost_rows)
    keys = np.sort(np.concatenate([ghost_rank * num_rows + ghosts, rank * num_rows + rows]))
    own = any_at((rows >= plan.offsets[rank]) & (rows < plan.offsets[rank + 1]))
    twice = any_at(~run_starts([keys]))
    if own >= 0 or twice >= 0:
        where = (rank[own], rows[own]) if own >= 0 else divmod(int(keys[twice]), num_rows)
        raise PlanError(f"rank {where[0]} holds row {where[1]} in staging although it has another slot for it")


def _rows_of(ranks: range, indptr: IntGlobal, rows: IntGlobal) -> tuple[IntGlobal, IntGlobal]:
    """Return the rows of some ranks, and the rank of each, int64."""
    counts = np.diff(indptr[ranks.start : ranks.stop + 1])
    return np.repeat(np.arange(ranks.start, ranks.stop), counts), rows[indptr[ranks.start] : indptr[ranks.stop]]


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


def _slot_of(plan: Plan, place: int) -> tuple[int, int]:
    """Return the rank and the slot of a place in `held_rows`."""
    start = plan.held_start()
    rank = int(np.searchsorted(start, place, side="right")) - 1
    return rank, place - int(start[rank]) + int(np.diff(plan.offsets)[rank])


def _mark(written: Bools, place: IntGlobal) -> Bools:
    """Mark places as written and return a mask of those that were before, or that are named twice."""
    again = written[place]
    if not place.size or again.any():
        return again
    among = slice(int(place.min()), int(place.max()) + 1)
    before = np.count_nonzero(written[among])
    written[place] = True
    if np.count_nonzero(written[among]) - before < place.size:
        again = np.bincount(place, minlength=written.size)[place] > 1
    return again


def _refuse(part: _Part, mask: Bools, what: str) -> None:
    """Raise for the first copy of a stage that breaks a rule."""
    i = any_at(mask)
    if i >= 0:
        stage = part.stage
        raise PlanError(
            f"stage {part.number}, copy {part.first + i}: slot {stage.send[i]} of rank {stage.src[i]} -> "
            f"slot {stage.recv[i]} of rank {stage.dst[i]} {what}"
        )
