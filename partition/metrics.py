"""What a layout makes the levels of a machine move, before any plan is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from sparsecomm.bipartite import matching_sizes
from sparsecomm.layout import Layout, Layouts
from sparsecomm.partition.limits import rank_bytes
from sparsecomm.partition.request import Request, largest_over_share
from sparsecomm.table import distinct
from sparsecomm.topology import Topology
from sparsecomm.typing import IntGlobal, IntRank

WAYS = ("gather", "reduce", "cover")
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Traffic:
    """Rows between the groups below a level, a row counted once for each group that it enters.

    Args:
        num_in, num_out: (groups,) int64 rows into and out of each group.
        peers: (groups,) int64, groups that each receives from or sends to, the larger number.
        messages: ordered pairs of groups with at least one row.
    """

    num_in: IntGlobal
    num_out: IntGlobal
    peers: IntGlobal
    messages: int

    @property
    def rows(self) -> int:
        return int(self.num_in.sum())

    @property
    def busiest(self) -> int:
        """The most rows into, or out of, one group."""
        return int(max(self.num_in.max(initial=0), self.num_out.max(initial=0)))

    def to_json(self) -> Json:
        return {
            "rows": self.rows,
            "messages": self.messages,
            "max_in": int(self.num_in.max(initial=0)),
            "max_out": int(self.num_out.max(initial=0)),
            "mean": float(self.num_in.mean()),
        }


@dataclass(frozen=True, slots=True, eq=False)
class Crossing:
    """The nonzeros of a matrix with the ranks of their row and of their column, in any numbering."""

    row: IntGlobal
    col: IntGlobal
    row_rank: IntRank
    col_rank: IntRank

    @staticmethod
    def of(matrix: csr_array[Any], layouts: Layouts) -> Crossing:
        """Find the nonzeros that cross between ranks, in original numbering."""
        rows, cols = (_owners(layout) for layout in layouts)
        row_rank = np.repeat(rows, np.diff(matrix.indptr))
        col_rank = cols[matrix.indices]
        crossing = np.flatnonzero(row_rank != col_rank)
        row = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr))[crossing]
        col = matrix.indices[crossing].astype(np.int64)
        return Crossing(row, col, row_rank[crossing], col_rank[crossing])

    def between(self, group: IntRank) -> Crossing:
        """Keep what crosses between groups, and name these in place of the ranks."""
        dst, src = group[self.row_rank], group[self.col_rank]
        apart = np.flatnonzero(dst != src)
        return Crossing(self.row[apart], self.col[apart], dst[apart], src[apart])

    def traffic(self, way: str, num_groups: int) -> Traffic:
        """Count rows of X (`gather`), partial rows of Y (`reduce`), or the fewest of both (`cover`)."""
        src, dst = self.col_rank, self.row_rank
        if way == "cover":
            pair = src.astype(np.int64) * num_groups + dst
            pairs, rows = distinct([pair])[0], matching_sizes(pair, self.row, self.col)
            return _traffic(pairs // num_groups, pairs % num_groups, rows, num_groups)
        if way == "gather":
            dst, _, src = distinct([dst, self.col, src])
        else:
            src, _, dst = distinct([src, self.row, dst])
        pair, rows = np.unique(src.astype(np.int64) * num_groups + dst, return_counts=True)
        return _traffic(pair // num_groups, pair % num_groups, rows, num_groups)


def _traffic(src: IntGlobal, dst: IntGlobal, rows: IntGlobal, num_groups: int) -> Traffic:
    num_in, num_out = (np.bincount(end, rows, num_groups).astype(np.int64) for end in (dst, src))
    peers = np.maximum(*(np.bincount(end, minlength=num_groups) for end in (dst, src)))
    return Traffic(num_in, num_out, peers, src.size)


def _owners(layout: Layout) -> IntRank:
    """Return the owner of every row in original numbering."""
    owners = layout.owners()
    return owners if layout.old_to_new is None else owners[layout.old_to_new]


def edge_cut(matrix: csr_array[Any], layouts: Layouts, topology: Topology) -> int:
    """Return the edges between nodes, an edge being a pair of vertices with a nonzero in either place."""
    crossing = Crossing.of(matrix, layouts).between(topology.rank_to_node)
    low, high = np.minimum(crossing.row, crossing.col), np.maximum(crossing.row, crossing.col)
    square = matrix.shape[0] == matrix.shape[1]
    return distinct([low, high])[0].size if square else crossing.row.size


def predicted_s(matrix: csr_array[Any], layouts: Layouts, topology: Topology, request: Request) -> float:
    """Return the time of a product that moves a cover over the network and gathers inside nodes.

    Each level: its latency times the peers of the busiest group, and the rows of the busiest group over all its
    ports. Then the nonzeros of the fullest rank, at the rate that cost models assume.
    """
    from sparsecomm.cost import CostModel

    crossing, total = Crossing.of(matrix, layouts), 0.0
    for number, level in enumerate(topology.levels):
        group = topology.group_of(number - 1)
        way = "cover" if number == topology.num_levels - 1 else "gather"
        traffic = crossing.between(group).traffic(way, topology.num_groups(number - 1))
        transfer = traffic.busiest * request.row_bytes / (level.bandwidth_Bps * level.ports)
        total += int(traffic.peers.max(initial=0)) * level.latency_s + transfer
    nnz = np.bincount(_owners(layouts.rows), np.diff(matrix.indptr), topology.num_ranks)
    most, rows = int(nnz.max(initial=0)), matrix.shape[0] // topology.num_ranks
    return total + CostModel(topology).product_s(most, rows, request.row_bytes, request.itemsize)


def move_s(matrix: csr_array[Any], layouts: Layouts, topology: Topology, request: Request) -> float:
    """Return the time to bring the nonzeros to their ranks once, from a block layout."""
    start, end = _owners(Layout.block(matrix.shape[0], topology.num_ranks)), _owners(layouts.rows)
    nodes = topology.rank_to_node
    counts = np.diff(matrix.indptr)
    away = nodes[start] != nodes[end]
    moved = [np.bincount(nodes[ranks[away]], counts[away], topology.num_nodes).max() for ranks in (start, end)]
    level = topology.levels[-1]
    size = request.itemsize + 8
    return float(max(moved)) * size / (level.bandwidth_Bps * level.ports)


def balance_json(matrix: csr_array[Any], layouts: Layouts, topology: Topology, request: Request) -> Json:
    """Return the largest load over the load meant, of ranks and of nodes, for rows, nonzeros and bytes."""
    shares = request.shares(topology)
    nnz = np.bincount(_owners(layouts.rows), np.diff(matrix.indptr), topology.num_ranks).astype(np.int64)
    loads = {"rows": layouts.rows.counts, "nnz": nnz, "memory": rank_bytes(matrix, layouts, request)}
    nodes, num_nodes = topology.rank_to_node, topology.num_nodes
    node_shares = np.bincount(nodes, shares, num_nodes).astype(np.float64)
    result: Json = {}
    for name, load in loads.items():
        by_node = np.bincount(nodes, load, num_nodes).astype(np.int64)
        result[name] = round(largest_over_share(load, shares), 6)
        result[f"node_{name}"] = round(largest_over_share(by_node, node_shares), 6)
    return result


def measure(matrix: csr_array[Any], layouts: Layouts, topology: Topology, request: Request) -> Json:
    """Return the rows that enter the groups of every level, three ways, with balance and predicted time.

    Args:
        matrix: in original numbering.
        layouts: of its rows and columns.
        topology: the machine.
        request: for the width and the memory of a row.

    Returns:
        `levels{LEVEL: {gather, reduce, cover: {rows, messages, max_in, max_out, mean}}}`: at a level the parties are
        the groups below it (ranks at the innermost, nodes at the outermost), and a row counts once for each group
        that it enters from outside, however far it came; `imbalance`, `edge_cut`, `predicted_s`.
    """
    crossing = Crossing.of(matrix, layouts)
    levels = {}
    for number, level in enumerate(topology.levels):
        between = crossing.between(topology.group_of(number - 1))
        groups = topology.num_groups(number - 1)
        levels[level.name] = {way: between.traffic(way, groups).to_json() for way in WAYS}
    return {
        "levels": levels,
        "imbalance": balance_json(matrix, layouts, topology, request),
        "edge_cut": edge_cut(matrix, layouts, topology),
        "predicted_s": predicted_s(matrix, layouts, topology, request),
    }
