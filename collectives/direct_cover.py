"""Strategy `direct-cover`: the minimum cover of each pair of ranks, rows going straight from rank to rank."""

from __future__ import annotations

from sparsecomm.collectives.copies import Copies
from sparsecomm.collectives.cover import cover_schedule
from sparsecomm.collectives.direct import direct_copies
from sparsecomm.collectives.strategy import Schedule, Strategy, register_strategy, up_to
from sparsecomm.cover import rank_cover
from sparsecomm.pattern import Pattern, Remote
from sparsecomm.table import Router
from sparsecomm.topology import Topology


def _schedule(remote: Remote, topology: Topology, router: Router) -> Schedule:
    """Source: Kayaaslan, Aykanat, Ucar 2018; SHIRO 2025."""
    return cover_schedule(rank_cover(remote), remote, topology, router, _spread)


def _spread(pattern: Pattern, topology: Topology, router: Router) -> Copies:
    return direct_copies(pattern, topology)


DIRECT_COVER = register_strategy(Strategy("direct-cover", _schedule, up_to(5_000_000), row_mode=True))
