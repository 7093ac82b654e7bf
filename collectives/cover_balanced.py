"""Strategy `cover-balanced`: as few network rows as `cover`, and fewer on the busiest rank."""

from __future__ import annotations

from sparsecomm.balanced_cover import balanced_cover
from sparsecomm.collectives.cover import cover_schedule
from sparsecomm.collectives.hierarchical import hierarchical_copies
from sparsecomm.collectives.strategy import Schedule, Strategy, register_strategy, up_to
from sparsecomm.pattern import Remote
from sparsecomm.table import Router
from sparsecomm.topology import Topology


def _schedule(remote: Remote, topology: Topology, router: Router) -> Schedule:
    return cover_schedule(balanced_cover(remote, topology, router), remote, topology, router, hierarchical_copies)


COVER_BALANCED = register_strategy(Strategy("cover-balanced", _schedule, up_to(1_000_000), row_mode=True))
