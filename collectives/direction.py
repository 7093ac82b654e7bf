"""The two directions of an exchange: schedule and buffer sets, and what goes in and what comes out."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

import numpy as np

from sparsecomm.collectives.buffers import BufferSet, Memory, Shelf, add_rows, scratch_for
from sparsecomm.collectives.epoch import Epoch, bytes_with_flags, flags_of
from sparsecomm.collectives.executed import Counter
from sparsecomm.collectives.in_place import InPlace, read_forward, read_reverse
from sparsecomm.collectives.rounds import StageRounds
from sparsecomm.collectives.run import Run
from sparsecomm.collectives.schedule import Message, Schedule
from sparsecomm.collectives.transport.base import MessageBuffer, SharedMemory, Transport
from sparsecomm.collectives.wire import RowFormat, Rows
from sparsecomm.errors import InputError
from sparsecomm.plan import RankPlan
from sparsecomm.profile import Track, TrackFacts, active
from sparsecomm.typing import IntGlobal, IntRank

_LOG: Final = logging.getLogger("sparsecomm")

_ASUNDER: Final = 64  # runs that are made before it pays to set up a call of all ranks

Shelves = defaultdict[tuple[str, int], Shelf]
"""The memory of an exchange by direction and turn; turn -1 is the scratch of a direction."""


class Sums(NamedTuple):
    """What a reverse run brought: own rows that some rank sent to, (n,) int64 without repetition, and their sums."""

    own: IntGlobal
    rows: Rows


class Direction(ABC):
    """Runs take the buffer sets in turn, so that all ranks use the set of one number for one run.

    Args:
        plan: of this rank.
        transport: its message numbers belong to the exchange alone.
        form: of the rows.
        depth: number of buffer sets, each made when its turn first comes.
        counter: told of everything that moves.
        shelves: give the memory.
        label: name and fingerprint of the plan, for records.
        check_finite: whether rows are looked at before they leave.
        delta: whether messages hold only rows that changed since the run before.
        num_shared: how many levels, the innermost, share memory.
        rounds: for every stage those of this rank's messages, in whose order they are posted; None: of their peers.
        as_one: whether runs that repeat go on as one call of all ranks each.

    Note: Collective over comm, where levels share memory.
    """

    parity: int  # keeps the message numbers of the two directions apart
    name: str  # for people

    def __init__(
        self,
        plan: RankPlan,
        transport: Transport,
        form: RowFormat,
        depth: int,
        counter: Counter,
        shelves: Shelves,
        *,
        label: tuple[str, str] = ("", ""),
        check_finite: bool = False,
        delta: bool = False,
        num_shared: int = 0,
        rounds: tuple[StageRounds, ...] | None = None,
        as_one: bool = False,
    ) -> None:
        self._plan, self._transport, self._form, self.depth, self._counter = plan, transport, form, depth, counter
        self._check_finite, self._shelves, self._delta = check_finite, shelves, delta
        self.in_place = self._read_in_place(num_shared) if num_shared else None
        self._shared = self._share(self.in_place) if self.in_place else []
        if not self._shared:
            self.in_place = None
        self._schedule = self.in_place.schedule if self.in_place else self._make_schedule()
        if rounds is not None:
            self._schedule = self._schedule.in_rounds([self._sent_in(stage) for stage in rounds])
        shelf = shelves[self.name, -1]
        self._scratch = scratch_for(self._schedule, form, shelf, decodes=self.in_place is not None)
        self._runs: list[Run] = []
        # By number, the runs from which on their buffer set goes on as one call: every rank begins them in this order.
        self.joining = range(_ASUNDER, _ASUNDER + depth) if as_one else range(0)
        self.on_join: Callable[[], object] = lambda: None  # for whoever keeps what a channel has given
        self.num_begun = 0  # the turn is that of the buffer set of this number, modulo `depth`
        self._label = label
        self._track: Track | None = None

    @abstractmethod
    def _make_schedule(self) -> Schedule: ...

    @abstractmethod
    def _sent_in(self, rounds: StageRounds) -> IntRank:
        """Return the rounds of what this rank sends in a stage."""

    @abstractmethod
    def _read_in_place(self, num_shared: int) -> InPlace: ...

    def _share(self, in_place: InPlace) -> list[SharedMemory]:
        """Return shared memory for every turn; none where some rank cannot have it.

        Note: Collective over comm.
        """
        near = in_place.near
        num_bytes = bytes_with_flags(in_place.total * self._form.width * self._form.dtype.itemsize, near.size)
        made = [self._transport.share(num_bytes) for _ in range(self.depth)]
        found = [memory for memory in made if memory is not None]
        if len(found) == self.depth:
            for memory in found:
                flags_of(memory, near.size)[int(np.searchsorted(near, self._plan.rank))] = 0
            self._transport.barrier()  # nobody looks at a number before it is cleared
            return found
        for memory in found:
            memory.close()
        _LOG.warning(
            "rank %d: %d bytes of shared memory cannot be had; rows inside the node are copied",
            self._plan.rank,
            num_bytes * self.depth,
        )
        return []

    @abstractmethod
    def _slot_rows(self) -> IntGlobal:
        """Return the global row of every slot, (num_slots,) int64."""

    @abstractmethod
    def _ends(self) -> tuple[range, range]:
        """Return the slots that are given to a run, and those that are its result."""

    @abstractmethod
    def _place(self, slots: Rows) -> Rows:
        """Return the slots that the rows given to a run go into."""

    @abstractmethod
    def check_given(self, block: Rows) -> None:
        """Raise an InputError unless a run can be given `block`."""

    @abstractmethod
    def check_out(self, block: Rows) -> None:
        """Raise an InputError unless a run can put its result into `block`."""

    @abstractmethod
    def result(self, run: Run, out: Rows | None) -> Rows:
        """Return the rows that a complete run brought, in `out` if there is one."""

    def finish_of(self, run: Run) -> Callable[[], Rows]:
        """Return a call for what `run` has brought, once it is complete."""
        return partial(self.result, run, None)

    def sums(self, run: Run) -> Sums:
        """Return what a complete reverse run brought.

        Raises:
            InputError: the run went forwards.
        """
        raise InputError("a run forwards brings ghosts and no sums; use wait()")

    def free_run(self) -> Run:
        """Return the run whose turn it is.

        Raises:
            InputError: its buffers are in use.
        """
        turn = self.num_begun % self.depth
        while len(self._runs) <= turn:
            self._runs.append(self._make_run(len(self._runs)))
        if self._runs[turn].busy:
            raise InputError(
                f"rank {self._plan.rank}: this exchange has depth={self.depth}, and the run begun {self.depth} "
                "starts ago has not been waited for; wait for it first, or make the exchange with a larger depth"
            )
        return self._runs[turn]

    def begin(self, run: Run) -> None:
        """Begin the run that `free_run` returned, its place filled; the turn passes on."""
        if self.num_begun in self.joining:
            run.channel = run.channel.as_one()
            self.on_join()
        self.num_begun += 1
        run.begin(self._recorded())

    @property
    def runs(self) -> list[Run]:
        return self._runs

    def close(self) -> None:
        """Release channels and memory.

        Note: Collective over comm, where levels share memory.
        """
        for run in self._runs:
            run.channel.close()
        for memory in self._shared:
            memory.close()

    def _recorded(self) -> Track | None:
        """Return where runs of this direction are recorded now, if they are."""
        recorder, plan = active(), self._plan
        if recorder is None or (recorder.rank, recorder.num_ranks) != (plan.rank, self._transport.num_ranks):
            return None
        if self._track is None or self._track.recorder is not recorder:
            form = self._form
            facts = TrackFacts(self._label[0], self.name, self._label[1], form.width, str(form.dtype), form.row_bytes)
            given, final = self._ends()
            schedule = self._make_schedule()  # where rows are read in place, that of this direction names other slots
            self._track = recorder.track(facts, _numbers(schedule.sends, given), _numbers(schedule.recvs, final))
        return self._track

    def _make_run(self, turn: int) -> Run:
        shelf = self._shelves[self.name, turn]
        shelf.rewind()
        memory = self._memory(turn, shelf)
        buffers = BufferSet(self._schedule, self._form, self._scratch, shelf, memory, self._delta)
        first = (2 * turn + self.parity) * len(self._plan.stages)
        channel = self._transport.open(
            _message_buffers(self._schedule.sends, buffers.out, first),
            _message_buffers(self._schedule.recvs, buffers.into, first),
        )
        slot_rows = self._slot_rows() if self._check_finite else None
        form, counter = self._form, self._counter
        run = Run(self._plan.rank, self.name, self._schedule, buffers, channel, form, counter, slot_rows)
        run.place = self._place(buffers.slots)
        if self.in_place is not None:
            run.epoch = Epoch(self._shared[turn], self._transport, self.in_place.near, self.in_place.readers)
            run.node_rows, places = memory.source, self.in_place.places
            if places.size:
                run.ghosts = shelf.empty((places.size, self._form.width), self._form.dtype)
                run.copy_out = partial(run.node_rows.take, places, 0, run.ghosts, "clip")
        return run

    def _memory(self, turn: int, shelf: Shelf) -> Memory:
        """Return the slots of a run."""
        if self.in_place is None:
            return Memory.private(self._schedule, self._form, shelf)
        data = self._shared[turn].data[: self.in_place.total * self._form.width * self._form.dtype.itemsize]
        node = data.view(self._form.dtype).reshape(self.in_place.total, self._form.width)
        return Memory(node[self.in_place.own], node, self.in_place.pulls, self.in_place.num_shared)

    def _check(self, block: Rows, num_rows: int, noun: str) -> None:
        shape, dtype = (num_rows, self._form.width), self._form.dtype
        if block.shape != shape or block.dtype != dtype:
            raise InputError(
                f"rank {self._plan.rank}: the {noun} rows must be {dtype} {shape}, not {block.dtype} {block.shape}"
            )


class Gather(Direction):
    """Forward: own rows in, ghost rows out."""

    parity, name = 0, "forwards"

    def _make_schedule(self) -> Schedule:
        return Schedule.forward(self._plan)

    def _read_in_place(self, num_shared: int) -> InPlace:
        return read_forward(self._plan, self._transport, num_shared)

    def _sent_in(self, rounds: StageRounds) -> IntRank:
        return rounds.send

    def _slot_rows(self) -> IntGlobal:
        return self._plan.slot_rows()

    def _ends(self) -> tuple[range, range]:
        own = self._plan.num_own
        return range(own), range(own, own + self._plan.num_ghost)

    def _place(self, slots: Rows) -> Rows:
        return slots[: self._plan.num_own]

    def check_given(self, block: Rows) -> None:
        self._check(block, self._plan.num_own, "own")

    def check_out(self, block: Rows) -> None:
        self._check(block, self._plan.num_ghost, "ghost")

    def result(self, run: Run, out: Rows | None) -> Rows:
        first = self._plan.num_own
        ghosts = run.buffers.slots[first : first + self._plan.num_ghost] if run.ghosts is None else run.ghosts
        if out is None:
            return ghosts
        np.copyto(out, ghosts)
        return out

    def finish_of(self, run: Run) -> Callable[[], Rows]:
        ghosts = self.result(run, None)
        return lambda: ghosts


class Scatter(Direction):
    """Reverse: partial rows of the ghosts in, sums of the own rows out."""

    parity, name = 1, "in reverse"

    def _make_schedule(self) -> Schedule:
        return Schedule.reverse(self._plan)

    def _read_in_place(self, num_shared: int) -> InPlace:
        return read_reverse(self._plan, self._transport, num_shared)

    def _sent_in(self, rounds: StageRounds) -> IntRank:
        return rounds.recv

    def _slot_rows(self) -> IntGlobal:
        rows = self._plan.slot_rows()
        return np.concatenate([rows[self._schedule.touched], rows[self._plan.num_own :]])

    def _ends(self) -> tuple[range, range]:
        first = self._schedule.first_ghost
        return range(first, first + self._plan.num_ghost), range(first)

    def _place(self, slots: Rows) -> Rows:
        first = self._schedule.first_ghost
        return slots[first : first + self._plan.num_ghost]

    def check_given(self, block: Rows) -> None:
        self._check(block, self._plan.num_ghost, "ghost")

    def check_out(self, block: Rows) -> None:
        self._check(block, self._plan.num_own, "own")

    def result(self, run: Run, out: Rows | None) -> Rows:
        touched, sums = self.sums(run)
        if out is not None:
            add_rows(out, touched, sums, self._scratch.slots)
            return out
        if run.sums is None:  # rows that nobody sends to stay the zeros of this one allocation
            run.sums = np.zeros((self._plan.num_own, self._form.width), dtype=self._form.dtype)
        run.sums[touched] = sums
        return run.sums

    def sums(self, run: Run) -> Sums:
        touched = self._schedule.touched
        return Sums(touched, run.buffers.slots[: touched.size])


def _numbers(messages: Sequence[Message], ends: range) -> IntGlobal:
    """Return what records keep of messages: stage, level, peer, rows, and rows at the ends of their way."""
    table = np.empty((len(messages), 5), dtype=np.int64)
    for row, m in zip(table, messages, strict=True):
        inside = np.count_nonzero((m.slots >= ends.start) & (m.slots < ends.stop))
        row[:] = m.stage, m.level, m.peer, m.num_rows, inside
    return table


def _message_buffers(messages: Sequence[Message], rows: Sequence[Rows], first: int) -> list[MessageBuffer]:
    # One message at most goes from a rank to another in a stage, so that its stage numbers it.
    return [MessageBuffer(m.peer, first + m.stage, data) for m, data in zip(messages, rows, strict=True)]
