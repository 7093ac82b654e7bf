"""Strategy `cover`: the fewest network rows among schedules that multiply at the owner of the row or of the column."""

from __future__ import annotations

import numpy as np

from sparsecomm.collectives.hierarchical import hierarchical_copies
from sparsecomm.collectives.strategy import Schedule, Strategy, register_strategy
from sparsecomm.cover import node_cover
from sparsecomm.pattern import Remote, patterns_of
from sparsecomm.table import Router
from sparsecomm.topology import Topology


def _schedule(remote: Remote, topology: Topology, router: Router) -> Schedule:
    """Gather the rows of X in the cover of each node pair, scatter the rows of Y in it, both once for each node.

    Source: Kayaaslan, Aykanat, Ucar 2018; SHIRO 2025; both cover pairs of ranks, this pairs of nodes.
    """
    table = remote.nonzeros
    served_by = node_cover(remote, topology, router)
    multiplier = np.where(served_by.row, table["col_rank"], table.rank)
    gather, scatter = patterns_of(remote, multiplier, router)
    return Schedule(
        hierarchical_copies(gather, topology, router), hierarchical_copies(scatter, topology, router), multiplier
    )


COVER = register_strategy(Strategy("cover", _schedule))
