"""Strategy `cover`: the fewest network rows among schedules that multiply at the owner of the row or of the column."""

from __future__ import annotations

import numpy as np

from sparsecomm.collectives.hierarchical import hierarchical_copies
from sparsecomm.collectives.strategy import Schedule, Strategy, register_strategy, two_sided
from sparsecomm.cover import ServedBy, node_cover
from sparsecomm.pattern import Remote
from sparsecomm.table import Router
from sparsecomm.topology import Topology
from sparsecomm.typing import IntRank


def multiplier_of(served_by: ServedBy, remote: Remote) -> IntRank:
    """Return the rank that multiplies each remote nonzero: the owner of its column, or else of its row."""
    return np.where(served_by.row, remote.nonzeros["col_rank"], remote.nonzeros.rank)


def _schedule(remote: Remote, topology: Topology, router: Router) -> Schedule:
    """Gather the rows of X in the cover of each node pair, scatter the rows of Y in it, both once for each node.

    Source: Kayaaslan, Aykanat, Ucar 2018; SHIRO 2025; both cover pairs of ranks, this pairs of nodes.
    """
    multiplier = multiplier_of(node_cover(remote, topology, router), remote)
    return two_sided(remote, topology, router, multiplier, hierarchical_copies)


COVER = register_strategy(Strategy("cover", _schedule))
