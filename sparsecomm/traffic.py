"""Every message of a product: who sends how many rows to whom, at which stage and level."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from sparsecomm.plan import Plan
from sparsecomm.product import Product
from sparsecomm.table import distinct, run_starts
from sparsecomm.topology import Topology
from sparsecomm.typing import Bools, Floats, IntGlobal
from sparsecomm.volume import Volume

PLANS: Final = ("gather", "scatter")


@dataclass(frozen=True, slots=True, eq=False)
class Traffic:
    """Messages, each as (num_messages,) int64 columns.

    Args:
        part: the plan of the product, or the track of a recording.
        stage, level: of the message.
        src, dst: the rank that it leaves and the one that it comes to.
        rows: that it carries.
        given: of these, rows that were in their slots before anything moved.
        final: of these, rows that go no further.
        count: how often it is sent.
        num_bytes: of all the times together.
    """

    part: IntGlobal
    stage: IntGlobal
    level: IntGlobal
    src: IntGlobal
    dst: IntGlobal
    rows: IntGlobal
    given: IntGlobal
    final: IntGlobal
    count: IntGlobal
    num_bytes: IntGlobal

    def __len__(self) -> int:
        return self.part.size

    @property
    def all_rows(self) -> IntGlobal:
        """Rows of all the times that a message is sent together."""
        return self.rows * self.count

    def take(self, index: IntGlobal | Bools) -> Traffic:
        return Traffic(*(getattr(self, name)[index] for name in self.__slots__))

    def divided(self, times: int) -> Traffic:
        """Return what one of `times` equal repetitions moves."""
        return replace(self, count=self.count // times, num_bytes=self.num_bytes // times)

    def by_rank(self, topology: Topology, weight: IntGlobal, side: str) -> Floats:
        """Return (num_levels, num_ranks): the sum of `weight` over the messages that leave (`src`) or come (`dst`)."""
        cells = self.level * topology.num_ranks + getattr(self, side)
        shape = (topology.num_levels, topology.num_ranks)
        return np.bincount(cells, weight, shape[0] * shape[1]).astype(np.float64).reshape(shape)

    def by_level(self, topology: Topology, weight: IntGlobal) -> IntGlobal:
        """Return (num_levels,) int64: the sum of `weight` over the messages of each level."""
        return np.bincount(self.level, weight, topology.num_levels).astype(np.int64)

    def stages(self) -> list[tuple[int, int, int]]:
        """Return (part, stage, level) of every stage that moves anything, ascending."""
        part, stage, level = (column.tolist() for column in distinct([self.part, self.stage, self.level]))
        return list(zip(part, stage, level, strict=True))

    def volume(self, topology: Topology, *, in_turn: bool = False) -> Volume:
        """Return what `Product.volume` does, but for the buffers, which messages say nothing of.

        Args:
            topology: of the ranks.
            in_turn: whether each part waits for the one before it.
        """
        rows, times = self.all_rows, self.count
        rows_in, rows_out = self.by_rank(topology, rows, "dst"), self.by_rank(topology, rows, "src")
        num_in, num_out = self.by_rank(topology, times, "dst"), self.by_rank(topology, times, "src")
        return Volume(
            self.by_level(topology, rows),
            self.by_level(topology, times),
            np.maximum(rows_in, rows_out).max(axis=1).astype(np.int64),
            np.maximum(num_in, num_out).max(axis=1).astype(np.int64),
            _busiest_child(rows_in, topology),
            _busiest_child(rows_out, topology),
            0,
            distinct([self.part, self.stage])[0].size,
            tuple(self.take(self.part == part).volume(topology) for part in np.unique(self.part)) if in_turn else (),
        )


def traffic_of(product: Product, row_bytes: int = 1) -> Traffic:
    """Return the messages of one product: the gather forwards, the scatter in reverse."""
    tables = [_messages(product.gather, 0, reverse=False), _messages(product.scatter, 1, reverse=True)]
    return from_table(np.concatenate(tables), row_bytes)


def from_table(table: IntGlobal, row_bytes: int) -> Traffic:
    """Return traffic from (num_messages, 8) int64, the columns of `to_table`, each message sent once."""
    part, stage, level, src, dst, rows, given, final = np.ascontiguousarray(table.T)
    return Traffic(part, stage, level, src, dst, rows, given, final, np.ones_like(rows), rows * row_bytes)


def to_table(traffic: Traffic) -> IntGlobal:
    """Return (num_messages, 8) int64: part, stage, level, src, dst, rows, given, final."""
    return np.stack([getattr(traffic, name) for name in Traffic.__slots__[:8]], axis=1)


def _messages(plan: Plan, part: int, *, reverse: bool) -> IntGlobal:
    tables = [np.empty((0, 8), dtype=np.int64)]
    own, ghost = np.diff(plan.offsets), np.diff(plan.ghost_indptr)
    for number, stage in enumerate(plan.stages):
        starts = np.flatnonzero(run_starts([stage.dst, stage.src]))
        if not starts.size:
            continue
        rows = np.diff(np.append(starts, stage.num_copies))
        from_own = np.add.reduceat((stage.send < own[stage.src]).astype(np.int64), starts)
        beyond = stage.recv - own[stage.dst]
        to_ghost = np.add.reduceat(((beyond >= 0) & (beyond < ghost[stage.dst])).astype(np.int64), starts)
        src, dst = stage.src[starts].astype(np.int64), stage.dst[starts].astype(np.int64)
        ends = (dst, src, rows, to_ghost, from_own) if reverse else (src, dst, rows, from_own, to_ghost)
        same = (np.full_like(rows, part), np.full_like(rows, number), np.full_like(rows, stage.level))
        tables.append(np.stack([*same, *ends], axis=1))
    return np.concatenate(tables)


def _busiest_child(rows: Floats, topology: Topology) -> IntGlobal:
    """Return, for every level, the most rows of one child group."""
    sums = [np.bincount(topology.group_of(level - 1), rows[level]) for level in range(topology.num_levels)]
    return np.array([each.max() for each in sums]).astype(np.int64)
