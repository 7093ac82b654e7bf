"""What a partition must satisfy, and how hard to try."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sparsecomm.cost import imbalance
from sparsecomm.errors import InputError
from sparsecomm.layout import Layouts
from sparsecomm.topology import Topology
from sparsecomm.typing import Floats, IntGlobal

Side = Literal["rows", "columns", "both"]
SIDES: tuple[Side, ...] = ("rows", "columns", "both")
Objective = Callable[[Layouts], float]
Goal = str | Objective
INDEX_BYTES = 8
MAX_BALANCE = 1000


@dataclass(frozen=True, slots=True)
class Request:
    """Limits and effort of a partition.

    Args:
        balance: largest load allowed over the load meant for a rank, 1 to 1000; a row is never split.
        seed: of methods that draw, 0 to 2**31 - 1.
        side: what a hypergraph counts: `rows` that are gathered, `columns` (the load is then their nonzeros and
            partial rows are counted), or `both`, each nonzero served the cheaper way.
        weights: one per rank: how much of the work it is to get; empty for equal shares, 0 for an empty part.
        memory_bytes: of each rank, for its nonzeros and its rows of X and Y; 0 for no limit.
        row_bytes: of one row of X.
        itemsize: bytes of a value.
        effort: 0 to 3: how much `auto` tries and how long a refinement goes on.
        iterations: products that the partition is for.
        flat: straight to ranks, without cutting nodes first.
        refine: whether the layout of a library is improved for the rows that cross.
        timeout_s: after which a library is ended.
        child_memory_bytes: that a library may take; 0 for nine tenths of all.
        goal: what `auto` makes least: predicted `time`, `network` rows of the cover, those of the `busiest` node,
            rows of the `gather`, edges `cut` between nodes, or a function of the layouts.
        cache: whether `auto` keeps what it found.
    """

    balance: float = 1.05
    seed: int = 0
    side: Side = "both"
    weights: tuple[float, ...] = ()
    memory_bytes: int = 0
    row_bytes: int = 256
    itemsize: int = 4
    effort: int = 1
    iterations: int = 1000
    flat: bool = False
    refine: bool = True
    timeout_s: float = 3600.0
    child_memory_bytes: int = 0
    goal: Goal = "time"
    cache: bool = False

    def __post_init__(self) -> None:
        # METIS and its like have 32 bits for each and would take more for something else.
        if not 1.0 <= self.balance <= MAX_BALANCE:
            raise InputError(
                f"balance {self.balance} is not 1 to {MAX_BALANCE}; it is the largest load over the mean load"
            )
        if not 0 <= self.seed < 2**31:
            raise InputError(f"seed {self.seed} is not 0 to {2**31 - 1}; choose another number")
        if self.side not in SIDES:
            raise InputError(f"side {self.side!r} is none of {', '.join(SIDES)}")
        if not 0 <= self.effort <= 3:
            raise InputError(f"effort {self.effort} is not one of 0, 1, 2, 3")
        if self.iterations < 1:
            raise InputError(f"{self.iterations} iterations are too few; give at least 1")
        if any(not 0 <= weight < np.inf for weight in self.weights) or (self.weights and not sum(self.weights)):
            raise InputError(f"weights {self.weights} must be at least 0, and one of them more")

    def shares(self, topology: Topology) -> Floats:
        """Return the fraction of the load that each rank is to get, (num_ranks,) float64.

        Raises:
            InputError: the weights are for another number of ranks.
        """
        if not self.weights:
            return np.full(topology.num_ranks, 1.0 / topology.num_ranks)
        if len(self.weights) != topology.num_ranks:
            raise InputError(f"{len(self.weights)} weights for {topology.num_ranks} ranks; give one for each rank")
        return np.asarray(self.weights, dtype=np.float64) / sum(self.weights)

    def bytes_of(self, rows: IntGlobal, nnz: IntGlobal) -> IntGlobal:
        """Return the memory of `rows` rows of X and Y together, and of `nnz` nonzeros."""
        return rows * self.row_bytes + nnz * (self.itemsize + INDEX_BYTES)


def largest_over_share(loads: IntGlobal, shares: Floats) -> float:
    """Return the largest load over the load meant; ranks that are meant to be empty do not count."""
    used = shares > 0
    if shares[used].size and np.ptp(shares[used]) == 0:
        return imbalance(loads[used])
    meant = shares[used] * loads.sum()
    return float((loads[used] / meant).max()) if loads.sum() else 1.0
