"""Strategy `cover-striped`: the rows of `cover`, spread over all ranks of a node as `striped` does."""

from __future__ import annotations

from sparsecomm.collectives.cover import multiplier_of
from sparsecomm.collectives.strategy import Schedule, Strategy, register_strategy, two_sided
from sparsecomm.collectives.striped import striped_copies
from sparsecomm.cover import node_cover
from sparsecomm.pattern import Remote
from sparsecomm.table import Router
from sparsecomm.topology import Topology


def _schedule(remote: Remote, topology: Topology, router: Router) -> Schedule:
    multiplier = multiplier_of(node_cover(remote, topology, router), remote)
    return two_sided(remote, topology, router, multiplier, striped_copies)


COVER_STRIPED = register_strategy(Strategy("cover-striped", _schedule))
