"""A distributed product: a gather plan, a scatter plan, and who multiplies each nonzero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sparsecomm.errors import PlanError
from sparsecomm.layout import Layouts
from sparsecomm.pattern import Remote
from sparsecomm.plan import Plan, RankPlan, any_at, fingerprint_of
from sparsecomm.table import Offline, Router, distinct, run_starts
from sparsecomm.topology import Topology
from sparsecomm.typing import IntGlobal, IntRank, frozen
from sparsecomm.volume import Volume, volume_of

if TYPE_CHECKING:
    import networkx as nx


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """A product for all ranks.

    Args:
        strategy: the name of the strategy that made it.
        gather: brings rows of X to the ranks that multiply with them (column layout).
        scatter: run in reverse, takes partial rows of Y to their owners (row layout).
        multiplier: (num_remote,) int32, the rank that multiplies each remote nonzero, in CSR order of the renumbered
            matrix; every other nonzero is multiplied by the owner of its row, who owns its column too.
        layouts: who owns rows and columns.
        relays: whether any rank multiplies a nonzero of which it owns neither row nor column, so that partial rows wait
            for ghosts.
    """

    strategy: str
    gather: Plan
    scatter: Plan
    multiplier: IntRank
    layouts: Layouts
    relays: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "multiplier", frozen(np.ascontiguousarray(self.multiplier, dtype=np.int32)))

    @property
    def topology(self) -> Topology:
        return self.gather.topology

    @property
    def num_ranks(self) -> int:
        return self.gather.num_ranks

    def volume(self) -> Volume:
        """Count what the stages of both plans move."""
        moves = [self.gather.moves(), self.scatter.moves(reverse=True)]
        return volume_of(moves, self.topology, Offline(self.num_ranks), in_turn=self.relays)

    def memory(self, width: int, dtype: npt.DTypeLike) -> IntGlobal:
        """Return the bytes that the exchanges of this product allocate on every rank, (num_ranks,) int64."""
        return self.gather.memory(width, dtype) + self.scatter.memory(width, dtype)

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits for both plans."""
        pairs = zip(self.gather.shards(), self.scatter.shards(), strict=True)
        return fingerprint_of(np.array([pair_hash(*pair) for pair in pairs], dtype=np.uint64))

    def rank(self, rank: int, remote: Remote) -> RankProduct:
        """Return the part of the product that `rank` executes, given the remote nonzeros it was made for."""
        mine = slice(*np.searchsorted(remote.nonzeros.rank, [rank, rank + 1]))
        return RankProduct(
            self.strategy,
            self.gather.rank(rank),
            self.scatter.rank(rank),
            self.multiplier[mine],
            self.layouts,
            self.relays,
        )

    def verify(self, remote: Remote | None = None) -> None:
        """Prove both plans and, given the remote nonzeros, that each is multiplied where its row and column are.

        Raises:
            PlanError: with the first violation.
        """
        self.gather.verify()
        self.scatter.verify()
        if remote is not None:
            _verify_multiplier(self, remote)

    def node_rows(self) -> tuple[IntGlobal, IntGlobal, IntGlobal]:
        """Return (src, dst, rows), int64: what crosses the network between each pair of nodes that sends anything.

        Ascending by (src, dst). The scatter plan runs in reverse, so its rows leave where its copies arrive.
        """
        node, num_nodes, outer = self.topology.rank_to_node, self.topology.num_nodes, self.topology.num_levels - 1
        pairs = [np.zeros(0, dtype=np.int64)]
        for plan, ends in ((self.gather, ("src", "dst")), (self.scatter, ("dst", "src"))):
            for stage in plan.stages:
                if stage.level == outer:
                    src, dst = (node[getattr(stage, end)].astype(np.int64) for end in ends)
                    pairs.append(src * num_nodes + dst)
        pair = np.sort(np.concatenate(pairs))
        starts = np.flatnonzero(run_starts([pair]))
        return pair[starts] // num_nodes, pair[starts] % num_nodes, np.diff(np.append(starts, pair.size))

    def to_networkx(self) -> nx.MultiDiGraph[int]:
        """Return ranks as nodes and messages as edges with `plan`, `stage`, `level` and `rows`, as they are sent.

        The scatter plan runs in reverse, so its edges point from users to owners.
        """
        import networkx as nx  # costs as much to load as everything else together

        gather, scatter = self.gather.to_networkx(), self.scatter.to_networkx().reverse(copy=False)
        graph: nx.MultiDiGraph[int] = nx.MultiDiGraph()
        graph.add_nodes_from(gather.nodes(data=True))
        for plan, part in (("gather", gather), ("scatter", scatter)):
            graph.add_edges_from((src, dst, {"plan": plan, **data}) for src, dst, data in part.edges(data=True))
        return graph

    def describe(self, width: int = 64, dtype: npt.DTypeLike = np.float32) -> str:
        """Return a table of the stages: rows, messages, bytes and what they should take at `width`."""
        from sparsecomm.describe import describe_product

        return describe_product(self, width, dtype)

    def __str__(self) -> str:
        return self.describe()


@dataclass(frozen=True, slots=True, eq=False)
class RankProduct:
    """The part of a product that one rank executes.

    Args:
        strategy: the name of the strategy that made it.
        gather, scatter: this rank's part of both plans.
        multiplier: (num_remote,) int32, the rank that multiplies each remote nonzero of this rank's rows, CSR order.
        layouts: who owns rows and columns.
        relays: as in `Product`, the same on every rank.
    """

    strategy: str
    gather: RankPlan
    scatter: RankPlan
    multiplier: IntRank
    layouts: Layouts
    relays: bool = False

    @property
    def rank(self) -> int:
        return self.gather.rank

    def volume(self, topology: Topology, router: Router) -> Volume:
        """Count what the stages of both plans move on all ranks together.

        Note: Collective over comm.
        """
        moves = [self.gather.moves(), self.scatter.moves(reverse=True)]
        return volume_of(moves, topology, router, in_turn=self.relays)

    def hash(self) -> int:
        """Return this rank's share of the fingerprint of the product."""
        return pair_hash(self.gather, self.scatter)


def pair_hash(gather: RankPlan, scatter: RankPlan) -> int:
    """Return the hash of one rank's two plans."""
    return (gather.hash() + 5 * scatter.hash()) % 2**64


def _verify_multiplier(product: Product, remote: Remote) -> None:
    table = remote.nonzeros
    if product.multiplier.shape != (len(table),):
        raise PlanError(f"the product names {product.multiplier.size} multipliers for {len(table)} remote nonzeros")
    for plan, name, layout in (
        (product.gather, "col", product.layouts.cols),
        (product.scatter, "row", product.layouts.rows),
    ):
        needed = np.flatnonzero(layout.owner(table[name]) != product.multiplier)
        rank = product.multiplier[needed]
        asked_rank, asked = distinct([rank, table[name][needed]])
        ghost_rank = np.repeat(np.arange(plan.num_ranks), np.diff(plan.ghost_indptr))
        have = _key(ghost_rank, plan.ghost_rows, layout.num_rows)
        wanted = _key(asked_rank, asked, layout.num_rows)
        lost = wanted[np.append(have, -1)[np.searchsorted(have, wanted)] != wanted]
        if lost.size:
            missing = any_at(np.isin(_key(rank, table[name][needed], layout.num_rows), lost))
            raise PlanError(
                f"nonzero ({table['row'][needed[missing]]}, {table['col'][needed[missing]]}) is multiplied by rank "
                f"{rank[missing]}, which does not have its {name}"
            )


def _key(rank: npt.NDArray[np.integer], row: IntGlobal, num_rows: int) -> IntGlobal:
    return rank.astype(np.int64) * num_rows + row
