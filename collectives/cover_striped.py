"""Strategy `cover-striped`: the rows of `cover`, spread over all ranks of a node as `striped` does."""

from __future__ import annotations

from sparsecomm.collectives.cover import cover_schedule
from sparsecomm.collectives.strategy import Schedule, Strategy, register_strategy
from sparsecomm.collectives.striped import striped_copies
from sparsecomm.cover import node_cover
from sparsecomm.pattern import Remote
from sparsecomm.table import Router
from sparsecomm.topology import Topology


def _schedule(remote: Remote, topology: Topology, router: Router) -> Schedule:
    return cover_schedule(node_cover(remote, topology, router), remote, topology, router, striped_copies)


COVER_STRIPED = register_strategy(Strategy("cover-striped", _schedule, row_mode=True))
