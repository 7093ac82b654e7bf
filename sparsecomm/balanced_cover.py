"""Of all minimum covers of node pairs, one whose rows are spread well over the ranks that send and receive them."""

from __future__ import annotations

from typing import Final

import numpy as np

from sparsecomm.bipartite import minimum_covers
from sparsecomm.cover import ServedBy
from sparsecomm.hashing import hash_rows
from sparsecomm.pattern import Remote
from sparsecomm.table import Router, Table
from sparsecomm.topology import Topology
from sparsecomm.typing import Bools, IntGlobal, IntRank

_ROUNDS: Final = 5
_PRICE: Final = 16  # of a row on a rank with mean load; prices are whole numbers so that all ranks agree on them


def balanced_cover(remote: Remote, topology: Topology, router: Router) -> ServedBy:
    """Cover the nonzeros between each ordered pair of nodes with as few rows as can be, of those that keep ranks even.

    Every rank has a price for rows out and one for rows in, which rises where it has more than its share; the cheapest
    minimum cover is taken, the loads are counted again, and the round with the least busiest rank is kept. The first
    round is that of `node_cover`. No pair of nodes exchanges a row more, so no node is busier.

    Note: Collective over comm.

    Source: prices of Garg and Konemann 1998 (multiplicative weights), on minimum covers.
    """
    key = ("balanced_cover", topology.groups.tobytes())
    return remote.once(key, lambda: _balanced_cover(remote, topology, router))


def _balanced_cover(remote: Remote, topology: Topology, router: Router) -> ServedBy:
    table, node = remote.nonzeros, topology.rank_to_node
    crossing = np.flatnonzero(node[table.rank] != node[table["col_rank"]])
    edges = table.take(crossing).with_columns(place=np.arange(crossing.size), holder=table.rank[crossing])
    if len(router.held) < router.num_ranks:
        solver = topology.member(topology.num_levels - 2, node[edges.rank], node[edges["col_rank"]])
        edges = router.route(edges, solver)
    market = _Market(edges, topology, router)
    by_row = market.best()
    answers = Table(edges.rank, {"place": edges["place"], "row": by_row})
    if len(router.held) < router.num_ranks:
        answers = router.route(answers, edges["holder"])
    served = np.zeros(len(table), dtype=np.bool_)
    served[crossing[answers["place"]]] = answers["row"]
    return ServedBy(served, int(market.covers.sizes.sum()))


class _Market:
    """The covers of the held pairs of nodes, and the ranks between which each row of X and of Y would cross."""

    def __init__(self, edges: Table, topology: Topology, router: Router) -> None:
        self._router = router
        inner, node = topology.num_levels - 2, topology.rank_to_node
        holder, col_rank = edges["holder"], edges["col_rank"]
        pair = node[col_rank].astype(np.int64) * topology.num_nodes + node[holder]
        self.covers = minimum_covers(pair, edges["row"], edges["col"])
        left, right = self.covers.edges
        self._rows = _Ways.of(left, topology.entry(inner, holder, col_rank), holder, [pair, edges["row"]])
        self._cols = _Ways.of(right, col_rank, topology.entry(inner, col_rank, holder), [pair, edges["col"]])

    def best(self) -> Bools:
        """Return which edges only their row covers, in the round with the least busiest rank."""
        price = np.ones((2, self._router.num_ranks))
        pairs = self.covers.pairs
        least, kept = -1, np.zeros(0, dtype=np.bool_)
        for number in range(_ROUNDS + 1):
            whole = np.rint(_PRICE * price).astype(np.int64)
            gain = self._rows.price(whole)[pairs.left] - self._cols.price(whole)[pairs.right]
            by_row = self.covers.cheapest(gain if number else np.zeros_like(gain))
            load = self._loads(by_row)
            if least < 0 or load.max() < least:
                least, kept = int(load.max()), by_row
            price *= np.sqrt(np.maximum(load, 1) / max(1.0, float(load.mean())))
            price = np.clip(price / price.mean(), 1 / _PRICE, _PRICE)
        return kept

    def _loads(self, by_row: Bools) -> IntGlobal:
        """Return (2, num_ranks) int64: rows out of and into every rank."""
        left, right = self.covers.edges
        num_ranks = self._router.num_ranks
        load = self._rows.loads(left[by_row], num_ranks) + self._cols.loads(right[~by_row], num_ranks)
        return self._router.reduce(load, "sum")


class _Ways:
    """The rank that sends and the rank that receives each vertex's row, and how fond it is of being cheap.

    Without a taste of its own every vertex between the same ranks would change sides at the same price, and all loads
    would jump from round to round.
    """

    def __init__(self, src: IntRank, dst: IntRank, taste: IntGlobal) -> None:
        self._ends, self._taste = (src, dst), taste

    @staticmethod
    def of(vertex: IntGlobal, src: IntRank, dst: IntRank, name: list[IntGlobal]) -> _Ways:
        ends = np.empty((3, int(vertex.max(initial=-1)) + 1), dtype=np.int64)
        taste = _PRICE // 2 + (hash_rows(name) % np.uint64(_PRICE + 1)).astype(np.int64)
        ends[0, vertex], ends[1, vertex], ends[2, vertex] = src, dst, taste
        return _Ways(ends[0].astype(np.int32), ends[1].astype(np.int32), ends[2])

    def price(self, price: IntGlobal) -> IntGlobal:
        """Return what each row costs, given (2, num_ranks) prices of rows out and in."""
        return np.asarray(price[0][self._ends[0]] + price[1][self._ends[1]]) * self._taste

    def loads(self, chosen: IntGlobal, num_ranks: int) -> IntGlobal:
        """Return (2, num_ranks) int64: rows out of and into every rank when the vertices `chosen` cross."""
        crosses = np.zeros(self._taste.size, dtype=np.bool_)
        crosses[chosen] = True
        return np.stack([np.bincount(end[crosses], minlength=num_ranks) for end in self._ends])
