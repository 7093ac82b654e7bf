"""Planning in a job, by ranks that hold only their rows; what was found before comes from a cache."""

from __future__ import annotations

from typing import Any

from scipy.sparse import csr_array

from sparsecomm.apps.cached_plans import (
    Counts,
    cached_counts,
    cached_rank_product,
    keep_counts,
    keep_rank_product,
    pattern_of_rows,
)
from sparsecomm.apps.job import on_root
from sparsecomm.apps.source import Say, quiet
from sparsecomm.collectives.strategies import Candidate, allowed, choose
from sparsecomm.collectives.strategy import Strategy
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.cost import CostModel
from sparsecomm.errors import InputError
from sparsecomm.layout import Layouts
from sparsecomm.pattern import Remote
from sparsecomm.plan_cache import PlanCache, plan_key
from sparsecomm.product import RankProduct
from sparsecomm.topology import Topology


class RowPlanner:
    """Counts strategies and makes products for one matrix of a job.

    Args:
        rows: (own rows, all columns) in new numbering.
        layouts: who owns rows and columns.
        topology: of the job.
        transport: over its ranks.
        plans: where counts and products are looked up and kept; None makes them anew.
        say: told of every step that begins.

    Note: Collective over comm.
    """

    def __init__(
        self,
        rows: csr_array[Any],
        layouts: Layouts,
        topology: Topology,
        transport: Transport,
        plans: PlanCache | None = None,
        say: Say = quiet,
    ) -> None:
        self._rows, self._layouts, self._topology, self.transport = rows, layouts, topology, transport
        self.plans, self._say = plans or PlanCache(None), say
        self._pattern = pattern_of_rows(rows, layouts, transport) if plans else ""
        self._remote: Remote | None = None
        self._counts: dict[str, Counts] = {}

    def key(self, *words: object) -> str:
        """Return the key in the cache of something found for this matrix on this machine."""
        return plan_key(self._pattern, self._topology, *words)

    def counts(self, asked: str) -> Counts:
        """Return what the strategies would move, those that take long only where `asked` names them.

        Note: Collective over comm.
        """
        if asked not in self._counts:
            self._counts[asked] = self._find_counts(asked)
        return self._counts[asked]

    def candidates(self, asked: str, cost: CostModel, width: int, itemsize: int) -> dict[str, Candidate]:
        """Predict the time of the strategies.

        Note: Collective over comm.
        """
        return self.counts(asked).candidates(cost, width, itemsize)

    def product(self, strategy: Strategy) -> RankProduct:
        """Return this rank's part of the product of a strategy.

        Note: Collective over comm.
        """
        found = cached_rank_product(self.plans, self._pattern, self._topology, strategy, self._layouts, self.transport)
        if found is None:
            self._say(f"building {strategy.name}")
            found = strategy.build_rank(self._find_remote(), self._topology, self.transport)
            keep_rank_product(self.plans, self._pattern, self._topology, strategy, found)
        return found

    def _find_counts(self, asked: str) -> Counts:
        topology, transport = self._topology, self.transport
        found = transport.bcast(on_root(transport, lambda: cached_counts(self.plans, self._pattern, topology, asked)))
        if found is None:
            found = Counts.of(self._find_remote(), topology, transport, asked, self._say)
            if transport.rank == 0:
                keep_counts(self.plans, self._pattern, topology, asked, found)
        return found

    def _find_remote(self) -> Remote:
        if self._remote is None:
            self._remote = Remote.of(self._rows, self._layouts, self.transport.held)
        return self._remote


def plan_rows(
    rows: csr_array[Any],
    layouts: Layouts,
    topology: Topology,
    transport: Transport,
    *,
    strategy: str | Strategy = "auto",
    width: int = 64,
    plans: PlanCache | None = None,
    guard: bool = False,
    row_mode: bool = True,
    cost: CostModel | None = None,
) -> RankProduct:
    """Make this rank's part of a product from its own rows; see `DistMatrix.from_rows`.

    Raises:
        InputError: on every rank, when the parts do not fit each other or there is no such strategy.

    Note: Collective over comm.
    """
    transport.agree(misfit(rows, layouts, topology, transport))
    planner, found = RowPlanner(rows, layouts, topology, transport, plans), {}
    if strategy == "auto":
        cost = cost or CostModel(topology)
        found = allowed(planner.candidates("auto", cost, width, rows.dtype.itemsize), row_mode)
        if guard:
            from sparsecomm.apps.matrix import DistMatrix  # they need this module
            from sparsecomm.apps.trial import try_plans

            strategy = try_plans(
                planner, found, lambda product: DistMatrix(rows, product, topology, transport), width, rows.dtype
            ).kept
    return planner.product(choose(found, strategy, row_mode=row_mode))


def misfit(rows: csr_array[Any], layouts: Layouts, topology: Topology, transport: Transport) -> InputError | None:
    """Return what is wrong with the parts that a rank brings, if anything is."""
    ranks = {"layout": layouts.rows.num_ranks, "topology": topology.num_ranks, "job": transport.num_ranks}
    if len(set(ranks.values())) > 1:
        differ = ", ".join(f"{name} {count}" for name, count in ranks.items())
        return InputError(f"numbers of ranks differ: {differ}; make layouts and topology for the ranks of the job")
    expected = (len(layouts.rows.own_rows(transport.rank)), layouts.cols.num_rows)
    if rows.shape != expected:
        return InputError(f"rank {transport.rank} must bring rows of shape {expected}, not {rows.shape}")
    return None
