"""Strategy `cover-greedy`: as `cover`, with a small cover that is found without a matching; for hard graphs."""

from __future__ import annotations

from sparsecomm.collectives.cover import cover_schedule
from sparsecomm.collectives.hierarchical import hierarchical_copies
from sparsecomm.collectives.strategy import Schedule, Strategy, register_strategy
from sparsecomm.cover import greedy_node_cover
from sparsecomm.pattern import Remote
from sparsecomm.table import Router
from sparsecomm.topology import Topology


def _schedule(remote: Remote, topology: Topology, router: Router) -> Schedule:
    return cover_schedule(greedy_node_cover(remote, topology, router), remote, topology, router, hierarchical_copies)


def _too_much(remote: Remote, topology: Topology, router: Router) -> str:
    return "cover has no more rows"


COVER_GREEDY = register_strategy(Strategy("cover-greedy", _schedule, _too_much, row_mode=True))
