"""What the planner should make, worked out row by row in plain Python, and random cases to hold it against."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from sparsecomm.layout import Layout, Layouts
from sparsecomm.plan import Plan
from sparsecomm.product import Product
from sparsecomm.topology import Topology

LEVEL_NAMES = ("rack", "socket", "node", "network")


class Copy(NamedTuple):
    """One row on its way: its level, the rank it leaves and the rank it comes to."""

    level: int
    src: int
    dst: int
    row: int


@dataclass(frozen=True)
class Machine:
    """A tree of ranks in plain lists.

    Args:
        groups: for each level, inner to outer and without the outermost, the group of every rank.
    """

    groups: tuple[tuple[int, ...], ...]

    @property
    def num_ranks(self) -> int:
        return len(self.groups[0])

    @property
    def num_levels(self) -> int:
        return len(self.groups) + 1

    @property
    def topology(self) -> Topology:
        names = LEVEL_NAMES[-self.num_levels :]
        levels = [{"name": name, "latency_s": 1e-6, "bandwidth_Bps": 1e9} for name in names]
        return Topology.from_dict({"name": "machine", "levels": levels, "groups": self.groups})

    def group(self, level: int, rank: int) -> int:
        """Return the group of `level` that `rank` is in; below level 0 every rank is a group of its own."""
        if level < 0:
            return rank
        return self.groups[level][rank] if level < len(self.groups) else 0

    def members(self, level: int, rank: int) -> list[int]:
        """Return the ranks, ascending, that share the group of `level` with `rank`."""
        return [p for p in range(self.num_ranks) if self.group(level, p) == self.group(level, rank)]

    def level_of(self, src: int, dst: int) -> int:
        return next(level for level in range(self.num_levels) if self.group(level, src) == self.group(level, dst))

    def entry(self, level: int, holder: int, rank: int) -> int:
        """Return where a row of `holder` enters the group of `level` that `rank` is in."""
        entered = self.members(level, rank)
        return entered[self.members(level, holder).index(holder) % len(entered)]


def machine(*groups: Sequence[int]) -> Machine:
    return Machine(tuple(tuple(level) for level in groups))


MACHINES = {
    "one rank": machine([0]),
    "one node": machine([0, 0, 0]),
    "one rank a node": machine([0, 1, 2, 3]),
    "two by two": machine([0, 0, 1, 1]),
    "uneven nodes": machine([0, 0, 0, 1, 2, 2, 2]),
    "interleaved nodes": machine([0, 1, 0, 1, 2]),
    "summit": machine([p // 3 for p in range(12)], [p // 6 for p in range(12)]),
    "uneven sockets": machine([0, 0, 1, 2, 2, 2, 3, 4, 4], [0, 0, 0, 1, 1, 1, 2, 2, 2]),
    "interleaved sockets": machine([0, 1, 2, 0, 3, 2, 0, 1], [0, 0, 1, 0, 2, 1, 0, 0]),
    "four levels": machine([0, 0, 1, 1, 2, 3, 3, 4], [0, 0, 0, 0, 1, 2, 2, 2], [0, 0, 0, 0, 0, 1, 1, 1]),
}


class Case(NamedTuple):
    """A matrix in new numbering on a machine."""

    machine: Machine
    matrix: csr_array[Any]
    layouts: Layouts


def random_case(seed: int, tree: Machine) -> Case:
    """Draw a matrix of whole numbers, often rectangular, and layouts in which some ranks own nothing."""
    rng = np.random.default_rng(seed)
    num_rows, num_cols = (int(n) for n in rng.integers(1, 45, 2))
    square = seed % 3 == 0
    num_cols = num_rows if square else num_cols
    density = rng.choice([0.0, 0.03, 0.15, 0.6])
    dense = rng.integers(1, 9, (num_rows, num_cols)) * (rng.random((num_rows, num_cols)) < density)
    rows = random_layout(rng, num_rows, tree.num_ranks)
    cols = rows if square else random_layout(rng, num_cols, tree.num_ranks)
    return Case(tree, csr_array(dense.astype(np.int64)), Layouts(rows, cols))


def random_layout(rng: np.random.Generator, num_rows: int, num_ranks: int) -> Layout:
    if rng.random() < 0.4:
        return Layout.block(num_rows, num_ranks)
    inner = np.sort(rng.integers(0, num_rows + 1, num_ranks - 1))
    return Layout(np.concatenate([[0], inner, [num_rows]]))


def owner_list(layout: Layout) -> list[int]:
    """Return the owner of every row."""
    offsets = layout.offsets.tolist()
    return [p for p in range(len(offsets) - 1) for _ in range(offsets[p], offsets[p + 1])]


def nonzeros(matrix: csr_array[Any]) -> list[tuple[int, int]]:
    """Return (row, column) of every stored entry in CSR order."""
    bounds, indices = matrix.indptr.tolist(), matrix.indices.tolist()
    return [(row, col) for row in range(matrix.shape[0]) for col in indices[bounds[row] : bounds[row + 1]]]


def remote_nonzeros(case: Case) -> list[tuple[int, int, int, int]]:
    """Return (row, column, owner of the row, owner of the column) of every remote nonzero in CSR order."""
    row_owner, col_owner = owner_list(case.layouts.rows), owner_list(case.layouts.cols)
    found = [(row, col, row_owner[row], col_owner[col]) for row, col in nonzeros(case.matrix)]
    return [entry for entry in found if entry[2] != entry[3]]


def needs_of(case: Case, multipliers: Iterable[int]) -> tuple[dict[int, set[int]], dict[int, set[int]]]:
    """Return for each row of X, and each row of Y, the ranks that multiply with it and do not own it."""
    cols: dict[int, set[int]] = defaultdict(set)
    rows: dict[int, set[int]] = defaultdict(set)
    for (row, col, row_owner, col_owner), rank in zip(remote_nonzeros(case), multipliers, strict=True):
        if rank != col_owner:
            cols[col].add(rank)
        if rank != row_owner:
            rows[row].add(rank)
    return dict(cols), dict(rows)


def col_needs(case: Case) -> dict[int, set[int]]:
    """Return for each row of X the ranks that own rows with it and do not own it."""
    return needs_of(case, [row_owner for _, _, row_owner, _ in remote_nonzeros(case)])[0]


def row_needs(case: Case) -> dict[int, set[int]]:
    """Return for each row of Y the ranks that make a part of it and do not own it."""
    return needs_of(case, [col_owner for _, _, _, col_owner in remote_nonzeros(case)])[1]


def nearest_cover(edges: Iterable[tuple[int, int]]) -> tuple[set[int], set[int]]:
    """Return the rows and the columns of the minimum vertex cover with fewest columns.

    By augmenting paths one at a time, and then alternating paths from the rows without a partner.
    """
    cols_of: dict[int, list[int]] = defaultdict(list)
    for row, col in edges:
        cols_of[row].append(col)
    mate: dict[int, int] = {}

    def augment(row: int, seen: set[int]) -> bool:
        for col in cols_of[row]:
            if col not in seen:
                seen.add(col)
                if col not in mate or augment(mate[col], seen):
                    mate[col] = row
                    return True
        return False

    for row in cols_of:
        augment(row, set())
    reached_rows = set(cols_of) - set(mate.values())
    reached_cols: set[int] = set()
    open_rows = list(reached_rows)
    while open_rows:
        new = set(cols_of[open_rows.pop()]) - reached_cols
        reached_cols |= new
        rows = {mate[col] for col in new if col in mate} - reached_rows
        reached_rows |= rows
        open_rows += rows
    return set(cols_of) - reached_rows, reached_cols


def covered_by_row(case: Case, group: Sequence[int]) -> list[bool]:
    """Return for each remote nonzero whether only its row is in the cover of its pair of groups; no pair, no row.

    Args:
        case: the matrix.
        group: of each rank; nonzeros between ranks of the same group need no cover.
    """
    remote = remote_nonzeros(case)
    graphs: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for row, col, dst, src in remote:
        if group[dst] != group[src]:
            graphs[group[src], group[dst]].append((row, col))
    covers = {pair: nearest_cover(edges) for pair, edges in graphs.items()}
    return [group[dst] != group[src] and col not in covers[group[src], group[dst]][1] for _, col, dst, src in remote]


def relayed(case: Case) -> list[int]:
    """Return who multiplies each remote nonzero: from the cover, drop nodes that third nodes make superfluous."""
    node, remote = case.machine.groups[-1], remote_nonzeros(case)
    by_row = covered_by_row(case, node)
    goes: dict[int, set[int]] = defaultdict(set)
    comes: dict[int, set[int]] = defaultdict(set)
    crossing = [(row, col, node[dst], node[src]) for row, col, dst, src in remote if node[dst] != node[src]]
    for (row, col, dst, src), served in zip(remote, by_row, strict=True):
        if node[dst] != node[src]:
            (comes[row] if served else goes[col]).add(node[src if served else dst])
    needs: dict[int, list[set[int]]] = defaultdict(list)
    for row, col, dst, src in crossing:
        if src not in comes[row]:
            needs[col].append(goes[col] & (comes[row] | {dst}))
    goes = defaultdict(set, {col: _few(sets) for col, sets in needs.items()})
    needs = defaultdict(list)
    for row, col, dst, src in crossing:
        if dst not in goes[col]:
            needs[row].append(comes[row] & (goes[col] | {src}))
    comes = defaultdict(set, {row: _few(sets) for row, sets in needs.items()})
    return [_relay_rank(case.machine, entry, goes[entry[1]], comes[entry[0]]) for entry in remote]


def _few(sets: list[set[int]]) -> set[int]:
    """Return nodes of which each set has one: those without alternative, then the most wanted one by one."""
    taken = set().union(*(one for one in sets if len(one) == 1))
    while waiting := [one for one in sets if not one & taken]:
        taken.add(min(set().union(*waiting), key=lambda node: (-sum(node in one for one in waiting), node)))
    return taken


def _relay_rank(machine: Machine, entry: tuple[int, int, int, int], goes: set[int], comes: set[int]) -> int:
    node, (_, _, dst, src) = machine.groups[-1], entry
    if node[dst] in goes or node[dst] == node[src]:
        return dst
    if node[src] in comes:
        return src
    third = min(goes & comes)
    return machine.entry(len(machine.groups) - 1, src, node.index(third))


def direct_copies(machine: Machine, owners: Sequence[int], needs: Mapping[int, set[int]]) -> set[Copy]:
    return {
        Copy(machine.level_of(owners[row], user), owners[row], user, row)
        for row, users in needs.items()
        for user in users
    }


def hierarchical_copies(machine: Machine, owners: Sequence[int], needs: Mapping[int, set[int]]) -> set[Copy]:
    """Send every row down the tree, once into each group that has a user."""
    return {
        copy
        for row, users in needs.items()
        for copy in _spread(machine, machine.num_levels - 1, owners[row], users, row)
    }


def _spread(machine: Machine, level: int, holder: int, users: Iterable[int], row: int) -> Iterator[Copy]:
    """Yield the copies of a row from `holder` to the users in its group of `level`."""
    if level < 0:
        return
    by_child = defaultdict(set)
    for user in users:
        by_child[machine.group(level - 1, user)].add(user)
    for child, inside in by_child.items():
        entry = holder
        if machine.group(level - 1, holder) != child:
            entry = machine.entry(level - 1, holder, min(inside))
            yield Copy(level, holder, entry, row)
        yield from _spread(machine, level - 1, entry, inside, row)


def volume_of_copies(case: Case, gather: set[Copy], scatter: set[Copy], *, in_turn: bool = False) -> dict[str, Any]:
    """Return the fields of the Volume of a schedule with one stage a level, `scatter` being run backwards."""
    machine = case.machine
    turned = {Copy(copy.level, copy.dst, copy.src, copy.row) for copy in scatter}
    runs = [("gather", copy) for copy in gather] + [("scatter", copy) for copy in turned]
    messages = {(plan, copy.level, copy.src, copy.dst) for plan, copy in runs}
    levels, ranks = range(machine.num_levels), range(machine.num_ranks)
    rows_in = [[sum(c.level == level and c.dst == p for _, c in runs) for p in ranks] for level in levels]
    rows_out = [[sum(c.level == level and c.src == p for _, c in runs) for p in ranks] for level in levels]
    told = [[sum(m[1] == level and m[3] == p for m in messages) for p in ranks] for level in levels]
    tell = [[sum(m[1] == level and m[2] == p for m in messages) for p in ranks] for level in levels]
    return {
        "rows": [sum(row) for row in rows_in],
        "messages": [sum(row) for row in told],
        "max_rank_rows": [max(a + b) for a, b in zip(rows_in, rows_out, strict=True)],
        "max_rank_messages": [max(a + b) for a, b in zip(told, tell, strict=True)],
        "max_group_in": [_busiest(machine, level, rows_in[level]) for level in levels],
        "max_group_out": [_busiest(machine, level, rows_out[level]) for level in levels],
        "max_rank_buffer": max(_buffer(case, p, [*gather, *scatter]) for p in ranks),
        "num_stages": len({(plan, copy.level) for plan, copy in runs}),
        "phases": [_phase(case, *one) for one in ((gather, set()), (set(), scatter))] if in_turn else [],
    }


def _phase(case: Case, gather: set[Copy], scatter: set[Copy]) -> dict[str, Any]:
    """Return the fields of one of two plans that follow each other, but for the buffers."""
    fields = volume_of_copies(case, gather, scatter)
    return {name: value for name, value in fields.items() if name != "max_rank_buffer"}


def _busiest(machine: Machine, level: int, rows: list[int]) -> int:
    totals = defaultdict(int)
    for p, count in enumerate(rows):
        totals[machine.group(level - 1, p)] += count
    return max(totals.values())


def _buffer(case: Case, rank: int, copies: list[Copy]) -> int:
    """Count own slots of X and Y, a slot and a place in a buffer for what comes, a place for what goes."""
    own = len(case.layouts.rows.own_rows(rank)) + len(case.layouts.cols.own_rows(rank))
    return own + sum(2 * (copy.dst == rank) + (copy.src == rank) for copy in copies)


def plan_rows(plan: Plan) -> list[list[int]]:
    """Return the global row in every slot of every rank."""
    own = _parts(range(int(plan.offsets[-1])), plan.offsets)
    ghosts, staging = _parts(plan.ghost_rows, plan.ghost_indptr), _parts(plan.staging_rows, plan.staging_indptr)
    return [a + b + c for a, b, c in zip(own, ghosts, staging, strict=True)]


def _parts(values: Iterable[int], indptr: npt.NDArray[np.int64]) -> list[list[int]]:
    numbers = [int(value) for value in values]
    return [numbers[begin:end] for begin, end in pairwise(indptr.tolist())]


def plan_copies(plan: Plan) -> list[list[Copy]]:
    """Return the copies of every stage, the row being that of the slot they read."""
    rows = plan_rows(plan)
    return [
        [Copy(stage.level, src, dst, rows[src][send]) for src, dst, send, _ in stage_entries(stage)]
        for stage in plan.stages
    ]


def stage_entries(stage: Any) -> list[tuple[int, int, int, int]]:
    columns = (getattr(stage, name).tolist() for name in ("src", "dst", "send", "recv"))
    return list(zip(*columns, strict=True))


def run_forward(plan: Plan, values: Mapping[int, int]) -> list[dict[int, int]]:
    """Push the owners' values through the slots; return what every rank has: own and ghost row -> value."""
    rows = plan_rows(plan)
    slots = [{slot: values[row] for slot, row in enumerate(range(a, b))} for a, b in pairwise(plan.offsets.tolist())]
    for stage in plan.stages:
        moving = [(dst, recv, slots[src][send]) for src, dst, send, recv in stage_entries(stage)]
        for dst, recv, value in moving:
            assert recv not in slots[dst], "a slot is written twice"
            slots[dst][recv] = value
    return [
        {rows[p][slot]: slots[p][slot] for slot in range(num_local)} for p, num_local in enumerate(_num_local(plan))
    ]


def run_reverse(plan: Plan, partials: Sequence[Mapping[int, int]]) -> dict[int, int]:
    """Send partial sums of own and ghost rows back to the owners; return row -> sum."""
    rows, num_local = plan_rows(plan), _num_local(plan)
    slots = [
        [part.get(row, 0) for row in rows[p][: num_local[p]]] + [0] * (len(rows[p]) - num_local[p])
        for p, part in enumerate(partials)
    ]
    for stage in reversed(plan.stages):
        moving = [(src, send, slots[dst][recv]) for src, dst, send, recv in stage_entries(stage)]
        for src, send, value in moving:
            slots[src][send] += value
    offsets = plan.offsets.tolist()
    return {row: slots[p][row - offsets[p]] for p in range(plan.num_ranks) for row in range(offsets[p], offsets[p + 1])}


def _num_local(plan: Plan) -> list[int]:
    return (np.diff(plan.offsets) + np.diff(plan.ghost_indptr)).tolist()


def run_product(product: Product, case: Case, x: Mapping[int, int]) -> dict[int, int]:
    """Multiply by the plans of a product: gather, form each product where it says, scatter."""
    have = run_forward(product.gather, x)
    row_owner, col_owner = owner_list(case.layouts.rows), owner_list(case.layouts.cols)
    multiplier = iter(product.multiplier.tolist())
    partials: list[dict[int, int]] = [defaultdict(int) for _ in have]
    for (row, col), value in zip(nonzeros(case.matrix), case.matrix.data.tolist(), strict=True):
        rank = row_owner[row] if row_owner[row] == col_owner[col] else next(multiplier)
        partials[rank][row] += value * have[rank][col]
    for rank, part in enumerate(partials):
        assert set(part) <= set(plan_rows(product.scatter)[rank]), "a partial row has no slot"
    return run_reverse(product.scatter, partials)
