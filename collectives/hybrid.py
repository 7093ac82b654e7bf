"""Strategy `hybrid`: stripes of columns that a node needs most of go there whole, the rest as in `hierarchical`."""

from __future__ import annotations

from typing import Final

import numpy as np

from sparsecomm.collectives.copies import Copies, outermost_first
from sparsecomm.collectives.hierarchical import hand_on
from sparsecomm.collectives.strategy import Schedule, Strategy, register_strategy, up_to
from sparsecomm.layout import Layout
from sparsecomm.pattern import Pattern, Remote
from sparsecomm.table import Router, Table, number, run_starts, sort_order
from sparsecomm.topology import Topology
from sparsecomm.typing import Bools, IntGlobal

STRIPE: Final = 64
"""Rows of a stripe: neighbours that one rank owns; the last stripe of a rank may be shorter."""

LEAST_SHARE: Final = 50
"""Per cent of a stripe that a node must need to get all of it, so that no node gets more than twice what it needs."""


def hybrid_copies(pattern: Pattern, topology: Topology, router: Router) -> Copies:
    """Schedule every ghost, stripes that are sent whole in a network stage of their own before the others.

    A stripe goes to every node that needs at least a certain share of it. The share is the largest for which whole
    stripes are at least as many rows as all others that cross, but never below `LEAST_SHARE`. Whole stripes lie side
    by side at both ends: they are ghosts of the rank through which they enter, whoever needs them.

    Note: Collective over comm.

    Source: Two-Face (ASPLOS 2024): collective transfers of dense stripes beside single rows of sparse ones.
    """
    outer, layout = topology.num_levels - 1, pattern.layout
    copies = hand_on(pattern.ghosts, topology, topology.num_levels, router)
    crosses = copies["level"] == outer
    entering, inner = copies.take(crosses), copies.take(~crosses)
    stripes, stripe = _stripes(entering, layout)
    dense = stripes["share"] >= _threshold(stripes, router)
    whole = _rows_of(stripes.take(dense))
    stages = [
        whole.with_columns(stage=np.zeros(len(whole), dtype=np.int32)),
        _others(entering, dense, stripe),
        inner.with_columns(stage=np.int32(outer + 1) - inner["level"]),
    ]
    table = Table.concat([stage.only("stage", "src", "row") for stage in stages])
    levels = (outer, *outermost_first(topology))
    kept = Pattern.union([pattern, Pattern.of_requests(whole.rank, whole["row"], layout)])
    return Copies(kept, table.sort("stage", "src", "row"), levels)


def _stripes(entering: Table, layout: Layout) -> tuple[Table, IntGlobal]:
    """Return the stripes that rows enter from, and the stripe of each entering row.

    The stripes are distinct (rank, `src`, `first`), with `size`, their rows, `need`, how many of them enter, and
    `share`, these in per cent.
    """
    begin = layout.offsets[entering["src"]]
    first = begin + (entering["row"] - begin) // STRIPE * STRIPE
    stripe = number([entering.rank, first])
    some = _first_places(stripe)
    size = np.minimum(STRIPE, layout.offsets[entering["src"][some] + 1] - first[some])
    need = np.bincount(stripe, minlength=some.size)
    columns = {"src": entering["src"][some], "first": first[some], "size": size, "need": need}
    return Table(entering.rank[some], {**columns, "share": 100 * need // size}), stripe


def _first_places(group: IntGlobal) -> IntGlobal:
    """Return a place of every group; groups are numbered from 0, none is empty."""
    order = sort_order([group])
    return order[run_starts([group[order]])]


def _threshold(stripes: Table, router: Router) -> int:
    """Return the share from which stripes are sent whole.

    Note: Collective over comm.
    """
    weights = [np.bincount(stripes["share"], stripes[name], 101).astype(np.int64) for name in ("size", "need")]
    size, need = router.reduce(np.stack(weights), "sum")
    at_least = np.cumsum(size[::-1])[::-1]
    below = np.cumsum(need) - need
    even = np.flatnonzero(at_least >= below)
    return max(LEAST_SHARE, int(even[-1]))


def _rows_of(stripes: Table) -> Table:
    """Return all rows of the stripes: (`src`, `row`) on the ranks they enter at."""
    size = stripes["size"]
    place = np.arange(int(size.sum())) - np.repeat(np.cumsum(size) - size, size)
    columns = {"src": np.repeat(stripes["src"], size), "row": np.repeat(stripes["first"], size) + place}
    return Table(np.repeat(stripes.rank, size), columns)


def _others(entering: Table, dense: Bools, stripe: IntGlobal) -> Table:
    """Return the entering rows of all stripes that are not sent whole, in the stage after them."""
    others = entering.take(~dense[stripe])
    return others.with_columns(stage=np.ones(len(others), dtype=np.int32))


def _schedule(remote: Remote, topology: Topology, router: Router) -> Schedule:
    gather = hybrid_copies(Pattern.of_cols(remote), topology, router)
    return Schedule(gather, Copies.none(Pattern.empty(remote.layouts.rows)), remote.nonzeros.rank)


HYBRID = register_strategy(Strategy("hybrid", _schedule, up_to(5_000_000)))
