"""Strategy `direct`: every rank fetches every row it needs from its owner."""

from __future__ import annotations

from sparsecomm.collectives.copies import Copies, outermost_first
from sparsecomm.collectives.strategy import Schedule, Strategy, register_strategy
from sparsecomm.pattern import Pattern, Remote
from sparsecomm.table import Router, Table
from sparsecomm.topology import Topology


def direct_copies(pattern: Pattern, topology: Topology) -> Copies:
    """Schedule every ghost from its owner to its user, one stage per level, outermost first."""
    ghosts = pattern.ghosts
    stage = topology.num_levels - 1 - topology.level_of(ghosts["owner"], ghosts.rank)
    table = Table(ghosts.rank, {"stage": stage, "src": ghosts["owner"], "row": ghosts["row"]})
    return Copies(pattern, table.sort("stage", "src", "row"), outermost_first(topology))


def _schedule(remote: Remote, topology: Topology, router: Router) -> Schedule:
    gather = direct_copies(Pattern.of_cols(remote), topology)
    return Schedule(gather, Copies.none(Pattern.empty(remote.layouts.rows)), remote.nonzeros.rank)


DIRECT = register_strategy(Strategy("direct", _schedule))
