"""Strategy `allgather`: every rank gets all of X, whatever the matrix; a baseline, and good for dense matrices."""

from __future__ import annotations

import numpy as np

from sparsecomm.collectives.copies import Copies
from sparsecomm.collectives.hierarchical import hierarchical_copies
from sparsecomm.collectives.strategy import Schedule, Strategy, register_strategy
from sparsecomm.layout import Layout
from sparsecomm.pattern import Pattern, Remote
from sparsecomm.table import Router
from sparsecomm.topology import Topology

_MOST_ROWS = 20_000_000


def _schedule(remote: Remote, topology: Topology, router: Router) -> Schedule:
    """Bring every row into every node once, and there to every rank."""
    pattern = _everything(remote.layouts.cols, router)
    return Schedule(
        hierarchical_copies(pattern, topology, router),
        Copies.none(Pattern.empty(remote.layouts.rows)),
        remote.nonzeros.rank,
    )


def _everything(layout: Layout, router: Router) -> Pattern:
    """Return all rows of all others as the ghosts of every held rank."""
    rank = np.repeat(np.arange(router.held.start, router.held.stop, dtype=np.int32), layout.num_rows)
    row = np.tile(np.arange(layout.num_rows, dtype=np.int64), len(router.held))
    return Pattern.of_requests(rank, row, layout)


def _too_much(remote: Remote, topology: Topology, router: Router) -> str | None:
    rows = remote.layouts.cols.num_rows * topology.num_ranks
    return f"{rows:,} rows on all ranks together, counted unasked up to {_MOST_ROWS:,}" if rows > _MOST_ROWS else None


ALLGATHER = register_strategy(Strategy("allgather", _schedule, _too_much))
