"""Plans: staged copies between numbered slots, for all ranks (`Plan`) and for one (`RankPlan`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from sparsecomm.errors import PlanError
from sparsecomm.hashing import hash_table
from sparsecomm.table import Offline, Table, run_starts, stable_order
from sparsecomm.topology import Topology
from sparsecomm.typing import MAX_SLOTS, Bools, IntGlobal, IntRank, frozen
from sparsecomm.volume import Moves, Volume, volume_of

if TYPE_CHECKING:
    import networkx as nx


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """Copy slot `send[i]` of rank `src[i]` into slot `recv[i]` of rank `dst[i]`, for every i.

    Args:
        level: the topology level that all copies of the stage belong to.
        src, dst, send, recv: (num_copies,) int32, ordered by (dst, src, global row).
    """

    level: int
    src: IntRank
    dst: IntRank
    send: IntRank
    recv: IntRank

    def __post_init__(self) -> None:
        for name in ("src", "dst", "send", "recv"):
            object.__setattr__(self, name, frozen(np.ascontiguousarray(getattr(self, name), dtype=np.int32)))

    @property
    def num_copies(self) -> int:
        return self.src.size


@dataclass(frozen=True, slots=True, eq=False)
class Messages:
    """What one rank sends (or receives) in a stage.

    Args:
        peers: (num_messages,) int32, ascending.
        indptr: (num_messages + 1,) int64; `slots[indptr[i]:indptr[i + 1]]` go to (come from) `peers[i]`.
        slots: (num_rows,) int32, in the order of the global rows they hold.
    """

    peers: IntRank
    indptr: IntGlobal
    slots: IntRank

    @staticmethod
    def of(peer: IntRank, slots: IntRank) -> Messages:
        """Group slots by their peer; `peer` is sorted."""
        starts = np.flatnonzero(run_starts([peer]))
        indptr = np.append(starts, peer.size).astype(np.int64)
        return Messages(peer[starts].astype(np.int32), indptr, np.ascontiguousarray(slots, dtype=np.int32))

    @property
    def num_messages(self) -> int:
        return self.peers.size

    @property
    def num_rows(self) -> int:
        return self.slots.size


@dataclass(frozen=True, slots=True, eq=False)
class RankStage:
    """One stage as one rank sees it; peers' rows lie in the same order on both sides."""

    level: int
    send: Messages
    recv: Messages


@dataclass(frozen=True, slots=True, eq=False)
class RankPlan:
    """The part of a plan that one rank executes.

    Args:
        rank: whose part this is.
        start: global number of the first own row.
        num_own: rows the rank owns; slots `0 .. num_own - 1`.
        ghost_rows: (num_ghost,) int64 ascending global rows; the slots after the own ones.
        staging_rows: (num_staging,) int64 global rows held in transit, by (stage, row); the slots after the ghosts.
        stages: in forward order; every rank has the same number of them.
    """

    rank: int
    start: int
    num_own: int
    ghost_rows: IntGlobal
    staging_rows: IntGlobal
    stages: tuple[RankStage, ...]

    @property
    def num_ghost(self) -> int:
        return self.ghost_rows.size

    @property
    def num_slots(self) -> int:
        return self.num_own + self.ghost_rows.size + self.staging_rows.size

    def slot_rows(self) -> IntGlobal:
        """Return the global row that every slot holds, (num_slots,) int64."""
        own = np.arange(self.start, self.start + self.num_own, dtype=np.int64)
        return np.concatenate([own, self.ghost_rows, self.staging_rows])

    def rows_at(self, slots: IntRank) -> IntGlobal:
        """Return the global rows that `slots` hold; own rows may be far more than fit in memory."""
        held = np.concatenate([self.ghost_rows, self.staging_rows, [0]])
        place = np.maximum(slots.astype(np.int64) - self.num_own, -1)
        return np.where(place >= 0, held[place], self.start + slots.astype(np.int64))

    def rows(self, num_levels: int) -> tuple[IntGlobal, IntGlobal]:
        """Return rows sent and rows received per level in a forward run, both (num_levels,) int64."""
        return _per_level(self.stages, num_levels, lambda messages: messages.num_rows)

    def messages(self, num_levels: int) -> tuple[IntGlobal, IntGlobal]:
        """Return messages sent and messages received per level in a forward run, both (num_levels,) int64."""
        return _per_level(self.stages, num_levels, lambda messages: messages.num_messages)

    def moves(self, reverse: bool = False) -> Moves:
        """Return what `volume_of` counts, in a job, for a run of this plan, forward or in reverse."""
        copies = [
            _copies_of(number, np.full(stage.recv.num_rows, self.rank, np.int32), _peer_of_each(stage.recv))
            for number, stage in enumerate(self.stages)
        ]
        levels = [stage.level for stage in self.stages]
        return Moves.of(Table.concat([_NO_COPIES, *copies]), levels, np.array([self.num_own]), reverse)

    def memory(self, width: int, dtype: npt.DTypeLike) -> int:
        """Return the bytes that an exchange of `width` columns of `dtype` allocates on this rank."""
        moved = sum(stage.send.num_rows + stage.recv.num_rows for stage in self.stages)
        return (self.num_slots + moved) * width * np.dtype(dtype).itemsize

    def hash(self) -> int:
        """Return a 64-bit hash; the sum over the ranks modulo 2**64 is the fingerprint of the whole plan."""
        head = np.array([self.start, self.num_own, *(stage.level for stage in self.stages)])
        total = 0
        # Everything is hashed with the rank: the sum over ranks must see what two of them exchange.
        for factor, rows in ((1, head), (3, self.ghost_rows), (5, self.staging_rows)):
            total += factor * hash_table([np.full(rows.size, self.rank), rows])
        for number, stage in enumerate(self.stages):
            for side, messages in enumerate((stage.send, stage.recv)):
                peers = _peer_of_each(messages)
                code = np.full(peers.size, (number * 64 + stage.level) * 2 + side)
                total += hash_table([code, np.full(peers.size, self.rank), peers, messages.slots])
        return total % 2**64


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A plan for all ranks.

    Args:
        topology: what the levels of the stages mean.
        offsets: (num_ranks + 1,) int64; rank p owns global rows `offsets[p] .. offsets[p + 1] - 1`.
        ghost_indptr, ghost_rows: int64; rank p needs `ghost_rows[ghost_indptr[p]:ghost_indptr[p + 1]]`, ascending.
        staging_indptr, staging_rows: int64; likewise the rows in transit, by (stage, row).
        stages: in forward order.

    Raises:
        PlanError: the arrays do not fit each other or the topology.
    """

    topology: Topology
    offsets: IntGlobal
    ghost_indptr: IntGlobal
    ghost_rows: IntGlobal
    staging_indptr: IntGlobal
    staging_rows: IntGlobal
    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        for name in ("offsets", "ghost_indptr", "ghost_rows", "staging_indptr", "staging_rows"):
            object.__setattr__(self, name, frozen(np.ascontiguousarray(getattr(self, name), dtype=np.int64)))
        ranks = self.topology.num_ranks
        _check_bounds("offsets", self.offsets, ranks, int(self.offsets[-1:].sum()))
        _check_bounds("ghost_indptr", self.ghost_indptr, ranks, self.ghost_rows.size)
        _check_bounds("staging_indptr", self.staging_indptr, ranks, self.staging_rows.size)
        check_slots(int(np.diff(self.slot_start()).max()))

    @property
    def num_ranks(self) -> int:
        return self.offsets.size - 1

    @property
    def num_copies(self) -> int:
        return sum(stage.num_copies for stage in self.stages)

    def slot_start(self) -> IntGlobal:
        """Return (num_ranks + 1,) int64: where the slots of each rank begin when all are laid end to end."""
        return self.offsets + self.ghost_indptr + self.staging_indptr

    def held_start(self) -> IntGlobal:
        """Return (num_ranks + 1,) int64: where the slots of each rank that hold no own rows begin, laid end to end."""
        return self.ghost_indptr + self.staging_indptr

    def held_rows(self) -> IntGlobal:
        """Return the global row of every slot that holds no own row; own rows may be far more than fit in memory."""
        start = self.held_start()
        rows = np.empty(int(start[-1]), dtype=np.int64)
        _lay(rows, start[:-1], self.ghost_rows, self.ghost_indptr)
        _lay(rows, start[:-1] + np.diff(self.ghost_indptr), self.staging_rows, self.staging_indptr)
        return rows

    def held_place(self, rank: IntRank, slot: IntRank) -> IntGlobal:
        """Return the place of slots `slot[i]` of `rank[i]` in `held_rows`; -1 for own rows."""
        beyond = slot - np.diff(self.offsets)[rank]
        return np.where(beyond >= 0, self.held_start()[rank] + beyond, -1)

    def rows_at(self, rank: IntRank, slot: IntRank, held_rows: IntGlobal) -> IntGlobal:
        """Return the global rows of slots `slot[i]` of `rank[i]`, given `held_rows()`."""
        return self.rows_in(self.held_place(rank, slot), rank, slot, held_rows)

    def rows_in(self, place: IntGlobal, rank: IntRank, slot: IntRank, held_rows: IntGlobal) -> IntGlobal:
        """Return what `rows_at` does, given `held_place(rank, slot)` too."""
        if not held_rows.size:
            return self.offsets[rank] + slot
        return np.where(place >= 0, held_rows[place], self.offsets[rank] + slot)

    def memory(self, width: int, dtype: npt.DTypeLike) -> IntGlobal:
        """Return the bytes that an exchange allocates on every rank, (num_ranks,) int64."""
        moved = np.zeros(self.num_ranks, dtype=np.int64)
        for stage in self.stages:
            for side in (stage.src, stage.dst):
                moved += np.bincount(side, minlength=self.num_ranks)
        return (np.diff(self.slot_start()) + moved) * width * np.dtype(dtype).itemsize

    def moves(self, reverse: bool = False) -> Moves:
        """Return what `volume_of` counts for a run of this plan, forward or in reverse."""
        copies = [_copies_of(number, stage.dst, stage.src) for number, stage in enumerate(self.stages)]
        levels = [stage.level for stage in self.stages]
        return Moves.of(Table.concat([_NO_COPIES, *copies]), levels, np.diff(self.offsets), reverse)

    def volume(self) -> Volume:
        """Count what a forward run moves."""
        return volume_of([self.moves()], self.topology, Offline(self.num_ranks))

    def rank(self, rank: int) -> RankPlan:
        """Return the part of the plan that `rank` executes."""
        bounds = [
            (np.searchsorted(stage.dst, [rank, rank + 1]), np.flatnonzero(stage.src == rank)) for stage in self.stages
        ]
        return self._slice(rank, [(slice(*recv), send) for recv, send in bounds])

    def shards(self) -> Iterator[RankPlan]:
        """Yield the part of every rank in turn, sorting the copies once for all of them."""
        ranks = np.arange(self.num_ranks + 1)
        orders = [stable_order(stage.src, self.num_ranks) for stage in self.stages]
        sends = [np.searchsorted(stage.src[order], ranks) for stage, order in zip(self.stages, orders, strict=True)]
        recvs = [np.searchsorted(stage.dst, ranks) for stage in self.stages]
        for p in range(self.num_ranks):
            picks = [
                (slice(recv[p], recv[p + 1]), order[send[p] : send[p + 1]])
                for recv, send, order in zip(recvs, sends, orders, strict=True)
            ]
            yield self._slice(p, picks)

    def _slice(self, rank: int, picks: list[tuple[slice, IntGlobal]]) -> RankPlan:
        stages = tuple(
            RankStage(
                stage.level,
                Messages.of(stage.dst[send], stage.send[send]),
                Messages.of(stage.src[recv], stage.recv[recv]),
            )
            for stage, (recv, send) in zip(self.stages, picks, strict=True)
        )
        return RankPlan(
            rank,
            int(self.offsets[rank]),
            int(self.offsets[rank + 1] - self.offsets[rank]),
            self.ghost_rows[self.ghost_indptr[rank] : self.ghost_indptr[rank + 1]],
            self.staging_rows[self.staging_indptr[rank] : self.staging_indptr[rank + 1]],
            stages,
        )

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that differ, in practice, for any two different plans."""
        return fingerprint_of(np.array([shard.hash() for shard in self.shards()], dtype=np.uint64))

    def verify(self) -> None:
        """Prove the plan: push row ids through the stages and check every rule of a stage list.

        Raises:
            PlanError: with the stage, the ranks and the slot of the first violation.

        Source: propagation of chunk states as in msccl-tools, on slots.
        """
        from sparsecomm.verify import verify_plan

        verify_plan(self)

    def to_networkx(self) -> nx.MultiDiGraph[int]:
        """Return ranks as nodes and messages as edges with `stage`, `level` and `rows`."""
        import networkx as nx  # costs as much to load as everything else together

        graph: nx.MultiDiGraph[int] = nx.MultiDiGraph()
        graph.add_nodes_from((p, {"node": int(n)}) for p, n in enumerate(self.topology.rank_to_node))
        for number, stage in enumerate(self.stages):
            starts = np.flatnonzero(run_starts([stage.dst, stage.src]))
            rows = np.diff(np.append(starts, stage.num_copies))
            name = self.topology.levels[stage.level].name
            for src, dst, count in zip(stage.src[starts], stage.dst[starts], rows, strict=True):
                graph.add_edge(int(src), int(dst), stage=number, level=name, rows=int(count))
        return graph


def _check_bounds(name: str, indptr: IntGlobal, num_ranks: int, num_rows: int) -> None:
    if indptr.shape != (num_ranks + 1,) or indptr[0] != 0 or indptr[-1] != num_rows or (np.diff(indptr) < 0).any():
        raise PlanError(
            f"{name} of a plan for {num_ranks} ranks must be {num_ranks + 1} numbers that rise from 0 to "
            f"the number of rows, {num_rows}"
        )


def check_slots(most: int) -> None:
    """Refuse a rank with more slots than int32 can number.

    Raises:
        PlanError: there are too many.
    """
    if most > MAX_SLOTS:
        raise PlanError(f"a rank would need {most} slots, but slots are numbered by int32; use more ranks")


def fingerprint_of(hashes: npt.NDArray[np.uint64]) -> str:
    """Return the fingerprint of a plan from the hashes of its ranks, in any order."""
    return f"{int(np.add.reduce(hashes, dtype=np.uint64)):016x}"


def _copies_of(number: int, dst: IntRank, src: IntRank) -> Table:
    """Return the copies of a stage as `Moves.of` takes them."""
    return Table(dst, {"stage": np.full(dst.size, number, np.int32), "src": src})


_NOTHING: Final = np.empty(0, dtype=np.int32)
_NO_COPIES: Final = _copies_of(0, _NOTHING, _NOTHING)


def _peer_of_each(messages: Messages) -> IntRank:
    """Return the peer of every row of the messages."""
    return np.repeat(messages.peers, np.diff(messages.indptr))


def _lay(target: IntGlobal, begin: IntGlobal, values: IntGlobal, indptr: IntGlobal) -> None:
    """Write `values[indptr[p]:indptr[p + 1]]` at `target[begin[p]:]` for every p."""
    target[np.repeat(begin - indptr[:-1], np.diff(indptr)) + np.arange(values.size)] = values


def _per_level(stages: tuple[RankStage, ...], num_levels: int, count: Any) -> tuple[IntGlobal, IntGlobal]:
    sent, received = np.zeros(num_levels, dtype=np.int64), np.zeros(num_levels, dtype=np.int64)
    for stage in stages:
        sent[stage.level] += count(stage.send)
        received[stage.level] += count(stage.recv)
    return sent, received


def any_at(mask: Bools) -> int:
    """Return the first place where `mask` is true, or -1."""
    return int(np.argmax(mask)) if mask.any() else -1
