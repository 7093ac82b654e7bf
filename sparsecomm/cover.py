"""Which remote nonzeros are served by a row of X and which by a partial row of Y, by minimum vertex covers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sparsecomm.bipartite import Cover, greedy_cover, minimum_cover
from sparsecomm.pattern import Remote
from sparsecomm.table import Router, Table, part_cuts, split
from sparsecomm.topology import Topology
from sparsecomm.typing import Bools, IntGlobal, IntRank

Solve = Callable[[IntGlobal, IntGlobal, IntGlobal], Cover]
"""Covers every graph of (graph, row, col)."""


@dataclass(frozen=True, slots=True, eq=False)
class ServedBy:
    """How a cover serves the remote nonzeros.

    Args:
        row: (num_remote,) bool; True where the owner of the column multiplies and a partial row of Y travels, False
            where a row of X travels to the owner of the row.
        size: rows that travel, of the graphs that the held ranks solved.
    """

    row: Bools
    size: int


def node_cover(remote: Remote, topology: Topology, router: Router) -> ServedBy:
    """Cover the nonzeros between each ordered pair of nodes with as few rows as can be.

    Nonzeros inside a node are served by rows of X. The pair from node s to node d is solved by the rank of d numbered
    s modulo the size of d.

    Note: Collective over comm.

    Source: Kayaaslan, Aykanat, Ucar 2018 and SHIRO 2025 (joint row and column cover of rank pairs), here of node pairs.
    """
    key = ("node_cover", topology.rank_to_node.tobytes())
    return remote.once(key, lambda: _node_cover(remote, topology, router, minimum_cover))


def greedy_node_cover(remote: Remote, topology: Topology, router: Router) -> ServedBy:
    """Cover the nonzeros between each ordered pair of nodes with few rows, by degrees and without a matching.

    Note: Collective over comm.
    """
    key = ("greedy_node_cover", topology.rank_to_node.tobytes())
    return remote.once(key, lambda: _node_cover(remote, topology, router, greedy_cover))


def rank_cover(remote: Remote) -> ServedBy:
    """Cover the nonzeros between each ordered pair of ranks with as few rows as can be.

    Source: Kayaaslan, Aykanat, Ucar 2018; SHIRO 2025.
    """
    return remote.once("rank_cover", lambda: _rank_cover(remote))


def _rank_cover(remote: Remote) -> ServedBy:
    table = remote.nonzeros
    pair = table["col_rank"].astype(np.int64) * remote.layouts.rows.num_ranks + table.rank
    cover = minimum_cover(pair, table["row"], table["col"])
    return ServedBy(cover.by_left, int(cover.sizes.sum()))


def _node_cover(remote: Remote, topology: Topology, router: Router, solve: Solve) -> ServedBy:
    table = remote.nonzeros
    cuts = part_cuts(table, topology.rank_to_node, router)
    parts = [_cover_part(part, topology, router, solve) for part in split(table, cuts)]
    return ServedBy(np.concatenate([part.row for part in parts]), sum(part.size for part in parts))


def _cover_part(table: Table, topology: Topology, router: Router, solve: Solve) -> ServedBy:
    """Cover the nonzeros of all rows of some nodes."""
    node = topology.rank_to_node
    dst, src = node[table.rank], node[table["col_rank"]]
    crossing = np.flatnonzero(dst != src)
    dst, src = dst[crossing], src[crossing]
    pair = src.astype(np.int64) * topology.num_nodes + dst
    edges = table.only("row", "col").take(crossing).with_columns(pair=pair)
    served = np.zeros(len(table), dtype=np.bool_)
    if len(router.held) == router.num_ranks:
        cover = solve(edges["pair"], edges["row"], edges["col"])
        served[crossing], size = cover.by_left, int(cover.sizes.sum())
    else:
        served[crossing], size = _solve_at(edges, topology.member(topology.num_levels - 2, dst, src), router, solve)
    return ServedBy(served, size)


def _solve_at(edges: Table, solver: IntRank, router: Router, solve: Solve) -> tuple[Bools, int]:
    """Have the ranks `solver` cover the graphs `pair` and tell the holders of the edges, in the order of `edges`."""
    place = np.arange(len(edges))
    asked = router.route(edges.with_columns(place=place, holder=edges.rank), solver)
    cover = solve(asked["pair"], asked["row"], asked["col"])
    answers = router.route(Table(asked.rank, {"place": asked["place"], "row": cover.by_left}), asked["holder"])
    served = np.empty(len(edges), dtype=np.bool_)
    served[answers["place"]] = answers["row"]
    return served, int(cover.sizes.sum())
