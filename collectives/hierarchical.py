"""Strategy `hierarchical`: a row enters each group of ranks once, and is handed on inside it."""

from __future__ import annotations

import numpy as np

from sparsecomm.collectives.copies import Copies, outermost_first
from sparsecomm.collectives.strategy import MANY, Schedule, Strategy, register_strategy, up_to
from sparsecomm.pattern import Pattern, Remote
from sparsecomm.table import Router, Table, part_cuts, split
from sparsecomm.topology import Topology
from sparsecomm.typing import IntRank


def hierarchical_copies(pattern: Pattern, topology: Topology, router: Router) -> Copies:
    """Schedule every ghost so that it enters each group of each level once, at the rank the lane rule names.

    Works from the inside out: at each level the ranks that want a row ask the holder of their group for it, and the
    holders, their requests merged, are the ones that want it at the next level.

    Note: Collective over comm.

    Source: Hidayetoglu et al., Petascale XCT (SC 2020) and SparseComm, for any tree of levels.
    """
    cuts = part_cuts(pattern.ghosts, topology.rank_to_node, router)
    parts = [_staged(part, topology, router) for part in split(pattern.ghosts, cuts)]
    return Copies(pattern, Table.concat(parts), outermost_first(topology))


def _staged(ghosts: Table, topology: Topology, router: Router) -> Table:
    """Return the copies (`stage`, `src`, `row`) that bring the ghosts of some nodes, in their order."""
    copies = hand_on(ghosts, topology, topology.num_levels, router)
    outermost = np.int32(topology.num_levels - 1)
    copies = copies.with_columns(stage=outermost - copies["level"]).only("stage", "src", "row")
    return copies.sort("stage", "src", "row")


def hand_on(wanted: Table, topology: Topology, num_levels: int, router: Router) -> Table:
    """Return the copies (`level`, `src`, `row`) that bring rows to ranks, once into each group on their way.

    Args:
        wanted: distinct (rank, `row`), with `owner`, the rank where the row starts out, in the same group of level
            `num_levels` - 1.
        topology: whose groups.
        num_levels: how many levels to go up from the ranks.
        router: moves the requests.

    Note: Collective over comm.
    """
    copies = []
    for level in range(num_levels):
        holder = _holder(topology, level, wanted["owner"], wanted.rank)
        moves = np.flatnonzero(holder != wanted.rank)
        at_level = np.full(moves.size, level, dtype=np.int32)
        copies.append(wanted.only("row").take(moves).with_columns(level=at_level, src=holder[moves]))
        wanted = _at_holders(wanted, holder, router)
    return Table.concat(copies)


def _holder(topology: Topology, level: int, owner: IntRank, rank: IntRank) -> IntRank:
    """Return the rank that holds a row of `owner[i]` inside the group of `level` that `rank[i]` is in."""
    holder = owner
    for inner in range(topology.num_levels - 2, level - 1, -1):
        group = topology.group_of(inner)
        outside = np.flatnonzero(group[holder] != group[rank])
        holder = holder.copy()
        holder[outside] = topology.entry(inner, holder[outside], rank[outside])
    return holder


def _at_holders(wanted: Table, holder: IntRank, router: Router) -> Table:
    """Return the distinct rows that the holders lack: requests that moved and those that stayed."""
    asks = wanted.only("row", "owner").take(holder != wanted["owner"])  # owners have their rows
    to_rank = holder[holder != wanted["owner"]]
    if len(router.held) == router.num_ranks:
        return Table(to_rank, asks.columns).distinct("row", "owner")  # which orders them as routing would
    moves = to_rank != asks.rank
    asked = router.route(asks.take(moves), to_rank[moves])
    return Table.concat([asks.take(~moves), asked]).distinct("row", "owner")


def _schedule(remote: Remote, topology: Topology, router: Router) -> Schedule:
    gather = hierarchical_copies(Pattern.of_cols(remote), topology, router)
    return Schedule(gather, Copies.none(Pattern.empty(remote.layouts.rows)), remote.nonzeros.rank)


HIERARCHICAL = register_strategy(Strategy("hierarchical", _schedule, up_to(MANY)))
