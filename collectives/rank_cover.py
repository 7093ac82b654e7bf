"""Strategy `rank-cover`: the minimum cover of each pair of ranks, equal rows merged on their way between nodes.

A baseline: what is gained by covering first and merging later. `cover` never sends more rows over the network.
"""

from __future__ import annotations

from sparsecomm.collectives.cover import cover_schedule
from sparsecomm.collectives.hierarchical import hierarchical_copies
from sparsecomm.collectives.strategy import Schedule, Strategy, register_strategy, up_to
from sparsecomm.cover import rank_cover
from sparsecomm.pattern import Remote
from sparsecomm.table import Router
from sparsecomm.topology import Topology


def _schedule(remote: Remote, topology: Topology, router: Router) -> Schedule:
    """Source: SHIRO 2025, with two tiers of communication."""
    return cover_schedule(rank_cover(remote), remote, topology, router, hierarchical_copies)


RANK_COVER = register_strategy(Strategy("rank-cover", _schedule, up_to(5_000_000), row_mode=True))
