"""Strategy `striped`: as `hierarchical`, but the rows between two nodes are spread evenly over the ranks of both."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from sparsecomm.collectives.copies import Copies, outermost_first
from sparsecomm.collectives.hierarchical import hand_on
from sparsecomm.collectives.strategy import Schedule, Strategy, register_strategy
from sparsecomm.pattern import Pattern, Remote
from sparsecomm.table import Router, Table, number, part_cuts, run_starts, sort_order, split
from sparsecomm.topology import Topology
from sparsecomm.typing import IntGlobal

ROW_BYTES: Final = 256
"""Bytes of a row, to tell how many make a message worth its latency: 64 columns of float32, the default width."""


def striped_copies(pattern: Pattern, topology: Topology, router: Router) -> Copies:
    """Schedule every ghost so that it enters each node once, in a lane that has room.

    Rows first move inside the node of their owner to the lanes that are to send them, together with those that their
    own node needs; then they cross; then they are handed on inside the other node.

    Note: Collective over comm.

    Source: striping of HiCCL 2025, with owners first; node-aware communication of Bienz, Gropp and Olson.
    """
    cuts = part_cuts(pattern.ghosts, topology.rank_to_node, router)
    entering = [_enter(part, topology, router) for part in split(pattern.ghosts, cuts)]
    inside = Table.concat([part.inside for part in entering]).distinct("row", "owner")
    parts = [
        _staged(wanted, part, topology, router) for wanted, part in zip(split(inside, cuts), entering, strict=True)
    ]
    outer, *levels = outermost_first(topology)
    return Copies(pattern, Table.concat(parts), (*levels, outer, *levels))


class _Entering(NamedTuple):
    """What ranks of some nodes get from other nodes, and what it takes.

    Args:
        across, after: copies (`stage`, `src`, `row`) into the nodes, and inside them.
        inside: (`row`, `owner`) wanted by ranks of the owner's node: for themselves, or to send them to these nodes.
    """

    across: Table
    after: Table
    inside: Table


def _enter(ghosts: Table, topology: Topology, router: Router) -> _Entering:
    inner, node = topology.num_levels - 1, topology.rank_to_node
    home = node[ghosts["owner"]] == node[ghosts.rank]
    crossing, arrived = _cross(ghosts.take(~home), topology, router)
    after = hand_on(arrived, topology, inner, router)
    across = router.route(crossing.only("row", "src"), crossing["dst"])
    moved = crossing.take(crossing["src"] != crossing["owner"])
    hubs = router.route(moved.only("row", "owner"), moved["src"])
    return _Entering(
        across.with_columns(stage=np.full(len(across), inner, dtype=np.int32)).only("stage", "src", "row"),
        after.with_columns(stage=2 * inner - after["level"]).only("stage", "src", "row"),
        Table.concat([ghosts.take(home), hubs]),
    )


def _staged(wanted: Table, entering: _Entering, topology: Topology, router: Router) -> Table:
    """Return the copies of some nodes in their order, given the distinct (rank, `row`, `owner`) wanted inside them."""
    inner = topology.num_levels - 1
    before = hand_on(wanted, topology, inner, router)
    before = before.with_columns(stage=inner - 1 - before["level"]).only("stage", "src", "row")
    return Table.concat([before, entering.across, entering.after]).sort("stage", "src", "row")


def _cross(wanted: Table, topology: Topology, router: Router) -> tuple[Table, Table]:
    """Choose the ranks between which each row crosses into each node.

    Returns:
        (`row`, `owner`, `src`, `dst`) on the ranks that chose, and `wanted` with `owner` replaced by the rank of the
        same node where the row arrives.
    """
    node, inner = topology.rank_to_node, topology.num_levels - 2
    solver = topology.member(inner, node[wanted.rank], node[wanted["owner"]])
    asked = router.route(wanted.with_columns(asker=wanted.rank), solver)
    crossing = asked.distinct("row", "owner")
    src_node, dst_node = node[crossing["owner"]], node[crossing.rank]
    lane = _lanes(crossing, topology)
    crossing = crossing.with_columns(
        src=topology.member(inner, src_node, lane), dst=topology.member(inner, dst_node, lane)
    )
    hub = crossing["dst"][number([asked.rank, asked["row"]])]
    return crossing, router.route(asked.only("row").with_columns(owner=hub), asked["asker"])


def _lanes(crossing: Table, topology: Topology) -> IntGlobal:
    """Return the lane of each row between the node of its owner and that of the rank it is listed on.

    The rows of a pair of nodes are split evenly over as many lanes as they make messages worth their latency. A row
    whose owner's lane has room stays in it; the others fill the lanes that have room left.
    """
    node, inner = topology.rank_to_node, topology.num_levels - 2
    src, dst = node[crossing["owner"]].astype(np.int64), node[crossing.rank].astype(np.int64)
    pair = number([dst, src])
    count, size = np.bincount(pair), np.bincount(node)
    some = np.empty_like(count)
    some[pair] = np.arange(pair.size)  # a row of each pair
    width = np.maximum(size[src[some]], size[dst[some]])
    first = (src[some] + dst[some]) % width
    stripes = np.clip(count // _least_rows(topology), 1, width)
    place = (topology.lane_of(inner)[crossing["owner"]] - first[pair]) % width[pair]
    place = _with_room(pair, place, count, stripes)
    return (first[pair] + place) % width[pair]


def _least_rows(topology: Topology) -> int:
    """Return how many rows take as long on the wire as their message takes to start (half of peak bandwidth)."""
    link = topology.levels[-1]
    return max(1, int(link.latency_s * link.bandwidth_Bps / ROW_BYTES))


def _with_room(pair: IntGlobal, place: IntGlobal, count: IntGlobal, stripes: IntGlobal) -> IntGlobal:
    """Return the stripe of each row: `place` where it is one and has room, or else one that has room left.

    Args:
        pair: (num_rows,), which pair of nodes each row is between.
        place: (num_rows,), the stripe that its owner would send it in.
        count, stripes: rows and stripes of each pair.
    """
    begin = np.cumsum(stripes) - stripes
    of_stripe = np.repeat(np.arange(count.size), stripes)
    nth = np.arange(of_stripe.size) - begin[of_stripe]
    quota = count[of_stripe] // stripes[of_stripe] + (nth < count[of_stripe] % stripes[of_stripe])
    spare = int(stripes.sum())  # stands for all places that are no stripe
    stripe = np.where(place < stripes[pair], begin[pair] + place, spare)
    order = sort_order([stripe])
    starts = np.flatnonzero(run_starts([stripe[order]]))
    position = np.empty_like(stripe)
    position[order] = np.arange(stripe.size) - np.repeat(starts, np.diff(np.append(starts, stripe.size)))
    stays = position < np.append(quota, 0)[stripe]
    left = quota - np.bincount(stripe[stays], minlength=spare)
    moves = np.flatnonzero(~stays)
    moves = moves[sort_order([pair[moves]])]
    stripe[moves] = np.repeat(np.arange(spare), left)
    return np.asarray(stripe - begin[pair])


def _schedule(remote: Remote, topology: Topology, router: Router) -> Schedule:
    gather = striped_copies(Pattern.of_cols(remote), topology, router)
    return Schedule(gather, Copies.none(Pattern.empty(remote.layouts.rows)), remote.nonzeros.rank)


STRIPED = register_strategy(Strategy("striped", _schedule))
