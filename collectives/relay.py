"""Strategy `relay`: as `cover`, but a third node that gets the row of X and sends the partial row of Y multiplies."""

from __future__ import annotations

import numpy as np

from sparsecomm.collectives.hierarchical import hierarchical_copies
from sparsecomm.collectives.strategy import Schedule, Strategy, register_strategy, up_to
from sparsecomm.cover import node_cover
from sparsecomm.hitting import hitting_choices
from sparsecomm.node_sets import NodeSets
from sparsecomm.pattern import Remote, patterns_of
from sparsecomm.table import Router, Table, run_starts
from sparsecomm.topology import Topology
from sparsecomm.typing import IntGlobal, IntRank


def _schedule(remote: Remote, topology: Topology, router: Router) -> Schedule:
    """Drop from the cover what third nodes make superfluous, first rows of X, then partial rows of Y.

    A nonzero (r, c) can be multiplied in any node that has row c and from which a partial row r goes to the owner of r.
    Each column keeps few of the nodes that it was to be sent to, given where partial rows come from; then each row
    keeps few of the nodes that were to send partial rows of it, given where the columns now go.
    """
    multiplier = _multiplier(remote, topology, router)
    gather, scatter = (
        hierarchical_copies(pattern, topology, router) for pattern in patterns_of(remote, multiplier, router)
    )
    return Schedule(gather, scatter, multiplier)


def _multiplier(remote: Remote, topology: Topology, router: Router) -> IntRank:
    table, node = remote.nonzeros, topology.rank_to_node
    dst, src = node[table.rank], node[table["col_rank"]]
    crossing = np.flatnonzero(dst != src)
    edges = table.with_columns(dst=dst, src=src).take(crossing)
    by_row = node_cover(remote, topology, router).row[crossing]
    columns = _Columns(edges, topology.num_nodes, router)
    goes = columns.tell(edges.take(~by_row).with_columns(node=edges["dst"][~by_row]))
    comes = NodeSets.of(edges["row"][by_row], edges["src"][by_row], topology.num_nodes)
    goes = columns.tell(columns.fewest(edges, goes, comes))
    comes = _fewest_rows(edges, goes, comes)
    multiplier = table.rank.copy()
    multiplier[crossing] = _first_able(edges, goes, comes, topology)
    return multiplier


class _Columns:
    """The owners of columns, who decide which nodes each goes to, and the ranks that have to know.

    Note: Collective over comm, as are its methods.
    """

    def __init__(self, edges: Table, num_nodes: int, router: Router) -> None:
        self._num_nodes, self._router = num_nodes, router
        self._in_job = len(router.held) < router.num_ranks
        if self._in_job:
            asked = edges.only("col", "col_rank").distinct("col", "col_rank")
            self._asked = router.route(asked.with_columns(asker=asked.rank), asked["col_rank"])

    def tell(self, pairs: Table) -> NodeSets:
        """Return the nodes of each column that has an edge here, given all (`col`, `node`) anywhere."""
        if not self._in_job:
            return NodeSets.of(pairs["col"], pairs["node"], self._num_nodes)
        pairs = pairs.distinct("col", "node", "col_rank")
        arrived = self._router.route(pairs, pairs["col_rank"])
        i, node = NodeSets.of(arrived["col"], arrived["node"], self._num_nodes).members(self._asked["col"])
        told = Table(self._asked.rank[i], {"col": self._asked["col"][i], "node": node})
        told = self._router.route(told, self._asked["asker"][i])
        return NodeSets.of(told["col"], told["node"], self._num_nodes)

    def fewest(self, edges: Table, goes: NodeSets, comes: NodeSets) -> Table:
        """Return (`col`, `node`) on the owner of each column: where it has to go, given who sends partial rows."""
        waits = edges.take(~comes.holds(edges["row"], edges["src"]))
        place, node = _able(waits["col"], waits["row"], waits["dst"], goes, comes)
        asks = waits.take(place).only("col", "row", "col_rank").with_columns(node=node)
        if self._in_job:
            asks = self._router.route(asks, asks["col_rank"])
        return asks.take(hitting_choices(asks["col"], asks["row"], asks["node"]))


def _fewest_rows(edges: Table, goes: NodeSets, comes: NodeSets) -> NodeSets:
    """Return where partial sums of each row have to come from while columns go to `goes`."""
    waits = edges.take(~goes.holds(edges["col"], edges["dst"]))
    place, node = _able(waits["row"], waits["col"], waits["src"], comes, goes)
    row = waits["row"][place]
    taken = hitting_choices(row, waits["col"][place], node)
    return NodeSets.of(row[taken], node[taken], comes.num_nodes)


def _able(
    key: IntGlobal, other: IntGlobal, end: IntRank, key_sets: NodeSets, other_sets: NodeSets
) -> tuple[IntGlobal, IntGlobal]:
    """Return (i, node): the nodes that `key[i]` visits and where `other[i]` is, at its own `end[i]` or on its way."""
    place, node = other_sets.members(other)
    place, node = np.concatenate([np.arange(end.size), place]), np.concatenate([end, node])
    visits = np.flatnonzero(key_sets.holds(key[place], node))
    return place[visits], node[visits]


def _first_able(edges: Table, goes: NodeSets, comes: NodeSets, topology: Topology) -> IntRank:
    """Return who multiplies each edge: the owner of its row, of its column, or the column's hub in a third node."""
    row, col = edges["row"], edges["col"]
    multiplier = np.where(goes.holds(col, edges["dst"]), edges.rank, edges["col_rank"])
    third = np.flatnonzero(~goes.holds(col, edges["dst"]) & ~comes.holds(row, edges["src"]))
    place, node = comes.members(row[third])
    place, node = (side[goes.holds(col[third[place]], node)] for side in (place, node))
    first = run_starts([place])
    inner = topology.num_levels - 2
    at = third[place[first]]
    multiplier[at] = topology.entry(inner, edges["col_rank"][at], topology.first_of_group(inner)[node[first]])
    return multiplier


RELAY = register_strategy(Strategy("relay", _schedule, up_to(5_000_000), row_mode=True))
