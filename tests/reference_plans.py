"""Small plans made the slow and obvious way: sets of copies in Python, independent of every planner."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from sparsecomm.plan import Plan, Stage
from sparsecomm.topology import Topology

Copy = tuple[int, int, int]  # source, destination, global row


@dataclass(frozen=True)
class Case:
    """Who owns what and who needs what."""

    topology: Topology
    offsets: list[int]
    ghosts: list[list[int]]

    def owner(self, row: int) -> int:
        return int(np.searchsorted(self.offsets, row, side="right")) - 1

    def node(self, rank: int) -> int:
        return int(self.topology.rank_to_node[rank])

    def hub(self, node: int, row: int) -> int:
        members = [rank for rank in range(len(self.ghosts)) if self.node(rank) == node]
        return members[row % len(members)]


def random_case(num_ranks: int, seed: int = 0, most_rows: int = 12) -> Case:
    """Draw uneven nodes, ranks that own nothing and ranks that need nothing."""
    rng = np.random.default_rng([seed, num_ranks])
    rank_to_node = np.sort(rng.integers(0, max(1, (num_ranks + 1) // 2), num_ranks))
    counts = rng.integers(1, most_rows + 1, num_ranks)
    counts[rng.random(num_ranks) < 0.2] = 0
    offsets = [0, *np.cumsum(counts).tolist()]
    ghosts = []
    for rank in range(num_ranks):
        others = [row for row in range(offsets[-1]) if not offsets[rank] <= row < offsets[rank + 1]]
        chosen = [row for row in others if rng.random() < 0.5]
        ghosts.append([] if rng.random() < 0.15 else chosen)
    return Case(Topology.from_nodes(rank_to_node), offsets, ghosts)


def direct_plan(case: Case) -> Plan:
    """Every rank is sent each ghost by its owner, one stage for each level."""
    copies = {(case.owner(row), rank, row) for rank, rows in enumerate(case.ghosts) for row in rows}
    inside = {copy for copy in copies if case.node(copy[0]) == case.node(copy[1])}
    return _plan(case, [(1, copies - inside), (0, inside)])


def hub_plan(case: Case) -> Plan:
    """A row crosses once for each needing node, from a hub of its owner's node to a hub of that node."""
    gather: set[Copy] = set()
    cross: set[Copy] = set()
    spread: set[Copy] = set()
    for rank, rows in enumerate(case.ghosts):
        for row in rows:
            owner = case.owner(row)
            if case.node(owner) == case.node(rank):
                gather.add((owner, rank, row))
                continue
            out, into = case.hub(case.node(owner), row), case.hub(case.node(rank), row)
            gather |= {(owner, out, row)} if out != owner else set()
            cross.add((out, into, row))
            spread |= {(into, rank, row)} if into != rank else set()
    return _plan(case, [(0, gather), (1, cross), (0, spread)])


def _plan(case: Case, stages: list[tuple[int, Iterable[Copy]]]) -> Plan:
    num_ranks = len(case.ghosts)
    slots: list[dict[int, int]] = []
    for rank in range(num_ranks):
        own = range(case.offsets[rank], case.offsets[rank + 1])
        slots.append({row: slot for slot, row in enumerate([*own, *case.ghosts[rank]])})
    staging: list[list[int]] = [[] for _ in range(num_ranks)]
    made = []
    for level, copies in stages:
        for _, dst, row in sorted(copies, key=lambda copy: copy[2]):
            if row not in slots[dst]:
                slots[dst][row] = len(slots[dst])
                staging[dst].append(row)
        ordered = sorted(copies, key=lambda copy: (copy[1], copy[0], copy[2]))
        columns = [(src, dst, slots[src][row], slots[dst][row]) for src, dst, row in ordered]
        made.append(Stage(level, *np.array(columns, dtype=np.int32).reshape(-1, 4).T))
    plan = Plan(case.topology, np.array(case.offsets), *_ragged(case.ghosts), *_ragged(staging), tuple(made))
    plan.verify()
    return plan


def _ragged(lists: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    indptr = np.cumsum([0, *map(len, lists)])
    return indptr.astype(np.int64), np.array([row for rows in lists for row in rows], dtype=np.int64)
