"""Strategy `redistribute`: for matrices of which every row is cut into pieces, one for each rank to multiply."""

from __future__ import annotations

from typing import Final

import numpy as np

from sparsecomm.collectives.direct import direct_copies
from sparsecomm.collectives.strategy import Schedule, Strategy
from sparsecomm.pattern import Remote, patterns_of
from sparsecomm.table import Router
from sparsecomm.topology import Topology


def _schedule(remote: Remote, topology: Topology, router: Router) -> Schedule:
    """Multiply all nonzeros of pieces s at rank s: a gather of X to slices of its width, a scatter of Y back.

    Rows and columns are pieces: piece s of row r is number r * num_ranks + s. Each has one user, so it goes straight
    there.
    """
    multiplier = (remote.nonzeros["col"] % topology.num_ranks).astype(np.int32)
    gather, scatter = (direct_copies(pattern, topology) for pattern in patterns_of(remote, multiplier, router))
    return Schedule(gather, scatter, multiplier)


REDISTRIBUTE: Final = Strategy("redistribute", _schedule, row_mode=True)
"""Not registered, and so not in the tables: it is for A times the identity of as many rows as there are ranks."""
