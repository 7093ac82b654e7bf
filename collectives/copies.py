"""Copies: a schedule before its slots are numbered, and how they become a plan."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sparsecomm.errors import PlanError
from sparsecomm.layout import Layout
from sparsecomm.pattern import Pattern
from sparsecomm.plan import Messages, Plan, RankPlan, RankStage, Stage, any_at, check_slots
from sparsecomm.table import Router, Table, part_cuts, sort_order, split, stable_order
from sparsecomm.topology import Topology
from sparsecomm.typing import IntGlobal, IntRank
from sparsecomm.volume import Moves


@dataclass(frozen=True, slots=True, eq=False)
class Copies:
    """Who sends which row to whom, in which stage.

    Args:
        pattern: the ghosts that the copies must bring.
        table: on the rank that receives: `stage`, `src` (int32) and `row` (int64), ordered by (stage, src, row).
            A rank receives a row at most once.
        levels: the topology level of every stage.
    """

    pattern: Pattern
    table: Table
    levels: tuple[int, ...]

    @staticmethod
    def none(pattern: Pattern) -> Copies:
        """Return the schedule that moves nothing."""
        empty = pattern.ghosts.take(np.empty(0, dtype=np.int64))
        table = Table(empty.rank, {"stage": empty["owner"], "src": empty["owner"], "row": empty["row"]})
        return Copies(pattern, table, ())

    def moves(self, router: Router, reverse: bool) -> Moves:
        """Return what `volume_of` counts."""
        own = self.pattern.layout.counts[router.held.start : router.held.stop]
        return Moves.of(self.table, self.levels, own, reverse)


def outermost_first(topology: Topology) -> tuple[int, ...]:
    """Return the levels of a schedule with one stage per level, the network first."""
    return tuple(range(topology.num_levels - 1, -1, -1))


def build_plan(copies: Copies, topology: Topology, router: Router) -> Plan:
    """Number the slots of a schedule for all ranks in one process."""
    table, ghosts, layout = copies.table, copies.pattern.ghosts, copies.pattern.layout
    cuts = part_cuts(table, topology.group_of(-1), router)
    parts = [
        _Slots(moved, wanted, layout, range(*ends))
        for moved, wanted, ends in zip(split(table, cuts), split(ghosts, cuts), pairwise(cuts.tolist()), strict=True)
    ]
    recv, send = np.concatenate([part.recv for part in parts]), _find_all(parts, cuts, table)
    order = stable_order(table["stage"], max(1, len(copies.levels)))
    bounds = np.searchsorted(table["stage"][order], np.arange(len(copies.levels) + 1))
    stages = []
    for number, level in enumerate(copies.levels):
        pick = order[bounds[number] : bounds[number + 1]]
        stages.append(Stage(level, table["src"][pick], table.rank[pick], send[pick], recv[pick]))
    staging = Table.concat([part.staging for part in parts])
    return Plan(
        topology,
        layout.offsets,
        _indptr(ghosts.rank, router.held),
        ghosts["row"],
        _indptr(staging.rank, router.held),
        staging["row"],
        tuple(stages),
    )


def _find_all(parts: list[_Slots], cuts: IntRank, copies: Table) -> IntRank:
    """Return the slot that each copy reads; looked up in the order of their ranks and rows, they are in the cache."""
    order = sort_order([copies["src"], copies["row"]])
    send = np.empty(order.size, dtype=np.int32)
    ends = np.searchsorted(copies["src"], cuts, sorter=order).tolist()
    for part, (begin, end) in zip(parts, pairwise(ends), strict=True):
        mine = order[begin:end]
        send[mine] = part.find(copies["src"][mine], copies["row"][mine])
    return send


def build_rank_plan(copies: Copies, router: Router) -> RankPlan:
    """Number the slots of a schedule in a job, for the one rank that this process is.

    Note: Collective over comm.
    """
    table, ghosts, layout = copies.table, copies.pattern.ghosts, copies.pattern.layout
    slots, rank = _Slots(table, ghosts, layout, router.held), router.held.start
    sent = table.only("stage", "row").with_columns(dst=table.rank)
    sends = router.route(sent, table["src"]).sort("stage", "dst", "row")
    send = slots.find(sends.rank, sends["row"])
    ends = np.arange(len(copies.levels) + 1)
    send_at, recv_at = (np.searchsorted(side["stage"], ends) for side in (sends, table))
    stages = []
    for number, level in enumerate(copies.levels):
        out = slice(send_at[number], send_at[number + 1])
        into = slice(recv_at[number], recv_at[number + 1])
        stages.append(
            RankStage(
                level,
                Messages.of(sends["dst"][out], send[out]),
                Messages.of(table["src"][into], slots.recv[into]),
            )
        )
    own = layout.own_rows(rank)
    return RankPlan(rank, own.start, len(own), ghosts["row"], slots.staging["row"], tuple(stages))


class _Slots:
    """The slots of neighbouring ranks: where every copy lands, and which slot holds a row.

    Args:
        table, ghosts: of these ranks, as in `Copies` and its pattern.
        layout: who owns the rows.
        held: the ranks.

    Attributes:
        recv: (num_copies,) int32, the slot that each copy writes.
        staging: the rows in transit by (rank, stage, row).
    """

    def __init__(self, table: Table, ghosts: Table, layout: Layout, held: range) -> None:
        self._layout, self._first = layout, held.start
        own, ghost_indptr = layout.counts[held.start : held.stop], _indptr(ghosts.rank, held)
        ghost_slot = _place_in_rank(ghosts.rank, ghost_indptr, own, self._first)
        recv = _take_or(ghost_slot, self._search(ghosts, table.rank, table["row"]))
        transit = np.flatnonzero(recv < 0)
        transit = transit[sort_order([key[transit] for key in (table.rank, table["stage"], table["row"])])]
        self.staging = table.only("row").take(transit)
        base = own + np.diff(ghost_indptr)
        staging_indptr = _indptr(self.staging.rank, held)
        check_slots(int((base + np.diff(staging_indptr)).max(initial=0)))
        recv[transit] = _place_in_rank(self.staging.rank, staging_indptr, base, self._first)
        by_row = sort_order([table.rank, table["row"]])
        self.recv = recv.astype(np.int32)
        self._held, self._held_slot = table.only("row").take(by_row), self.recv[by_row]

    def find(self, rank: IntRank, row: IntGlobal) -> IntRank:
        """Return the slot of `row[i]` on `rank[i]`, int32.

        Raises:
            PlanError: a rank is to send a row that it neither owns nor receives.
        """
        slot = row - self._layout.offsets[rank]
        foreign = np.flatnonzero((slot < 0) | (row >= self._layout.offsets[rank + 1]))
        found = _take_or(self._held_slot, self._search(self._held, rank[foreign], row[foreign]))
        missing = any_at(found < 0)
        if missing >= 0:
            at = foreign[missing]
            raise PlanError(f"rank {rank[at]} is to send row {row[at]}, which it neither owns nor receives")
        slot[foreign] = found
        return slot.astype(np.int32)

    def _search(self, table: Table, rank: IntRank, row: IntGlobal) -> IntGlobal:
        """Return the place of every (rank, row) in a table ordered by them, or -1."""
        span = self._layout.num_rows
        have = (table.rank - self._first).astype(np.int64) * span + table["row"]
        want = (rank - self._first).astype(np.int64) * span + row
        place = np.searchsorted(have, want)
        place[place == have.size] = 0
        return np.where(have[place] == want, place, -1) if have.size else np.full(want.size, -1, dtype=np.int64)


def _take_or(values: IntGlobal | IntRank, place: IntGlobal) -> IntGlobal:
    """Return `values[place]`, and -1 where `place` is -1."""
    return np.append(values, -1)[place]


def _indptr(rank: IntRank, held: range) -> IntGlobal:
    """Return where the rows of each held rank begin in a table ordered by rank, (num_held + 1,) int64."""
    return np.searchsorted(rank, np.arange(held.start, held.stop + 1)).astype(np.int64)


def _place_in_rank(rank: IntRank, indptr: IntGlobal, base: IntGlobal, first: int) -> IntGlobal:
    """Return base of the rank + place among the rows of the rank, for a table ordered by rank."""
    return np.arange(rank.size) + (base - indptr[:-1])[rank - first]
