"""Strategy `cover`: the fewest network rows among schedules that multiply at the owner of the row or of the column."""

from __future__ import annotations

import numpy as np

from sparsecomm.collectives.hierarchical import hierarchical_copies
from sparsecomm.collectives.strategy import MANY, Schedule, Spread, Strategy, register_strategy, up_to
from sparsecomm.cover import ServedBy, node_cover
from sparsecomm.pattern import Remote, patterns_of
from sparsecomm.table import Router
from sparsecomm.topology import Topology


def cover_schedule(served_by: ServedBy, remote: Remote, topology: Topology, router: Router, spread: Spread) -> Schedule:
    """Multiply at the owner of the column what a cover serves by row, and at the owner of the row all else.

    Note: Collective over comm.
    """
    table = remote.nonzeros
    multiplier = np.where(served_by.row, table["col_rank"], table.rank)
    patterns = remote.once(("patterns", served_by), lambda: patterns_of(remote, multiplier, router))
    gather, scatter = (spread(pattern, topology, router) for pattern in patterns)
    return Schedule(gather, scatter, multiplier)


def _schedule(remote: Remote, topology: Topology, router: Router) -> Schedule:
    """Gather the rows of X in the cover of each node pair, scatter the rows of Y in it, both once for each node.

    Source: Kayaaslan, Aykanat, Ucar 2018; SHIRO 2025; both cover pairs of ranks, this pairs of nodes.
    """
    return cover_schedule(node_cover(remote, topology, router), remote, topology, router, hierarchical_copies)


COVER = register_strategy(Strategy("cover", _schedule, up_to(MANY), row_mode=True))
