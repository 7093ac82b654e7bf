"""One run of an exchange in one direction: every message leaves as soon as what it reads is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

import numpy as np

from sparsecomm.collectives.buffers import BufferSet
from sparsecomm.collectives.burst import Burst
from sparsecomm.collectives.delta import DeltaRecv, DeltaSend
from sparsecomm.collectives.epoch import Epoch
from sparsecomm.collectives.executed import Counter
from sparsecomm.collectives.schedule import Message, Schedule
from sparsecomm.collectives.transport.base import Arrival, Channel, Swap
from sparsecomm.collectives.wire import RowFormat, Rows
from sparsecomm.errors import ExchangeError
from sparsecomm.profile import Track, clock
from sparsecomm.typing import IntGlobal


class Run:
    """Takes arrivals in, in the order that the schedule fixes, and sends what they make ready.

    Args:
        rank: for messages of errors.
        name: of the direction, for people.
        schedule: of the direction.
        buffers: a set of the direction; the run is its only user.
        channel: over the buffers of the set, messages numbered as in the schedule.
        form: of the rows.
        counter: told of everything that moves.
        slot_rows: (num_slots,) int64 global rows; given, rows are looked at before they leave and must be finite.
    """

    def __init__(
        self,
        rank: int,
        name: str,
        schedule: Schedule,
        buffers: BufferSet,
        channel: Channel,
        form: RowFormat,
        counter: Counter,
        slot_rows: IntGlobal | None = None,
    ) -> None:
        self.name, self.buffers, self.channel = name, buffers, channel
        self._rank, self._schedule, self._counter, self._form = rank, schedule, counter, form
        self._slot_rows = slot_rows
        self._expected = [rows.nbytes for rows in buffers.recvs]
        self._send_args = [
            (message.level, message.num_rows, rows.nbytes, pieces)
            for message, rows, pieces in zip(schedule.sends, buffers.sends, channel.pieces, strict=True)
        ]
        if any(buffers.delta_sends) and max(channel.pieces) > 1:
            raise ExchangeError(f"rank {rank}: delta=True needs messages that are not split; use more ranks")
        self._row_bytes = form.row_bytes
        self.independent = not any(schedule.send_waits)
        self._first_sends = tuple(_rotated(schedule, rank))
        self.burst = Burst.of(schedule, buffers, channel.pieces, form) if self._is_plain() else None
        self._recv_waits: list[int] = []
        self._send_waits: list[int] = []
        self._landed: list[bool] = []
        self._left = 0
        self.busy = False
        self.place: Rows = buffers.slots  # where the rows given to the run go
        self.lent = False  # whether the rows given are memory of the caller, who may change them once the run is over
        self.epoch: Epoch | None = None
        self.node_rows: Rows = buffers.slots
        self.ghosts: Rows | None = None
        self.copy_out: Callable[[], object] | None = None
        self.reads_in_place = False  # whether the caller reads node rows and says when it is done
        self._finished = True
        self.sums: Rows | None = None  # what a reverse run returns, made when first asked for
        self._track: Track | None = None  # where this run is recorded, if it is
        self._number = self._began = 0

    @property
    def received(self) -> bool:
        """Whether everything has arrived and been taken in, and so everything has been sent."""
        return self._left == 0

    def done(self) -> bool:
        """Return whether everything has been received and sent; what is read in place is then copied, and released."""
        if self._left or not self.channel.sent():
            return False
        if not self._finished:
            self._finished = True
            if self.epoch is not None and not self.reads_in_place:
                self.epoch.fence()
                if self.copy_out is not None:
                    self.copy_out()
                self.epoch.release()
        return not self.lent or self.reads_in_place or self.quiet()

    def quiet(self) -> bool:
        """Return whether no other rank reads this rank's memory any more."""
        return self.epoch is None or self.epoch.quiet()

    @property
    def open_messages(self) -> list[Message]:
        """What has not arrived of the first stage of which anything is missing; once all is there, what was sent."""
        missing = [m for m, landed in zip(self._schedule.recvs, self._landed, strict=True) if not landed]
        return [m for m in missing if m.stage == missing[0].stage] or list(self._schedule.sends)

    def begin(self, track: Track | None = None) -> None:
        """Arm the receives and send whatever waits for none; the slots that are given must hold their rows."""
        self.busy, self._finished, self._track = True, False, track
        if track is not None:
            self._number, self._began = track.begin(), clock()
        if self.epoch is not None:
            self.epoch.begin()
        self.expect_all()
        if self.burst is not None and track is None:
            self._send_all(self.burst)
            return
        self.channel.start()
        for index in self._first_sends:
            self._send(index)

    def _is_plain(self) -> bool:
        """Say whether all that is sent can be packed first, and leaves as it was packed."""
        unchanged = not any(self.buffers.delta_sends) and not any(self.buffers.delta_recvs)
        return self.independent and unchanged and self._slot_rows is None

    def swap(self) -> Swap | None:
        """Return the call that moves the messages of a burst, if there are such a run and such a call."""
        return self.channel.swap(self._first_sends) if self.burst is not None and self.burst.loads_little else None

    def expect_all(self) -> None:
        """Take it that nothing of the run has arrived."""
        self._left = len(self._expected)
        self._landed = [False] * self._left
        self._recv_waits, self._send_waits = list(self._schedule.recv_waits), list(self._schedule.send_waits)

    def _send_all(self, burst: Burst) -> None:
        for pack in burst.packs:
            pack()
        if self.epoch is not None:
            self.epoch.fence()
        self.channel.start(self._first_sends)
        for counts in burst.sent:
            self._counter.sent(*counts)

    def _take_in_all(self, burst: Burst) -> None:
        for unpack in burst.unpacks:
            unpack()
        for counts in burst.received:
            self._counter.received(*counts)
        for level, num_bytes in burst.loaded:
            self._counter.loaded[level] += num_bytes
        self._landed, self._left = burst.landed, 0

    def advance(self, arrivals: Sequence[Arrival]) -> None:
        """Take in what landed and send what may leave now."""
        if arrivals and self.epoch is not None:
            self.epoch.fence()
        if self.burst is not None and self._track is None and arrivals == self.burst.arrivals:
            self._take_in_all(self.burst)
            return
        for index, num_bytes in arrivals:
            delta = self.buffers.delta_recvs[index]
            if delta is not None:
                self._open(delta, self._schedule.recvs[index], num_bytes)
            else:
                self._check(self._schedule.recvs[index], num_bytes, self._expected[index])
            self._landed[index] = True
            if self._track is not None:
                self._track.landed(index, self._number, num_bytes)
            if self._recv_waits[index] == 0:
                self._take_in(index)

    def block(self) -> None:
        """From now on the rank only waits for the run to be complete."""
        if self._track is not None:
            self._track.block()

    def complete(self) -> None:
        """Note that all has come and all that was sent is out of the buffers."""
        if self._track is not None:
            self._track.unblock(self._number, self._began)

    def _take_in(self, index: int) -> None:
        ready = [index]
        while ready:
            index = ready.pop()
            unpack = self.buffers.unpacks[index]
            if unpack is not None:
                began = clock() if self._track is not None else 0
                unpack()
                if self._track is not None:
                    self._track.unpacked(index, self._number, began)
            self._left -= 1
            for follower in self._schedule.then_recvs[index]:
                self._recv_waits[follower] -= 1
                if self._recv_waits[follower] == 0 and self._landed[follower]:
                    ready.append(follower)
            for follower in self._schedule.then_sends[index]:
                self._send_waits[follower] -= 1
                if self._send_waits[follower] == 0:
                    self._send(follower)

    def _send(self, index: int) -> None:
        pack, track = self.buffers.packs[index], self._track
        began = clock() if track is not None else 0
        if pack is not None:
            pack()
        if self._slot_rows is not None:
            self._check_finite(self._schedule.sends[index], self.buffers.sends[index], self._slot_rows)
        if self.epoch is not None:
            self.epoch.fence()
        packed = clock() if track is not None else 0
        delta, num_bytes = self.buffers.delta_sends[index], self.buffers.sends[index].nbytes
        if delta is not None:
            num_bytes = self._send_changed(index, delta)
        else:
            self.channel.post(index)
            self._counter.sent(*self._send_args[index])
        if track is not None:
            track.sent(index, self._number, began, packed, num_bytes)

    def _send_changed(self, index: int, delta: DeltaSend) -> int:
        """Send the rows of a message that changed and return how many bytes that are."""
        num_rows = delta.seal()
        num_bytes = delta.num_bytes(num_rows)
        self.channel.post(index, num_bytes)
        self._counter.sent(self._schedule.sends[index].level, num_rows, num_bytes, 1)
        return num_bytes

    def _open(self, delta: DeltaRecv, message: Message, num_bytes: int) -> None:
        try:
            num_rows = delta.open(num_bytes)
        except ExchangeError as err:
            raise ExchangeError(f"rank {self._rank}, stage {message.stage}, from rank {message.peer}: {err}") from err
        self._counter.received(message.level, num_rows, num_bytes)

    def _check_finite(self, message: Message, rows: Rows, slot_rows: IntGlobal) -> None:
        numbers = np.empty((message.num_rows, self._form.width), dtype=self._form.dtype)
        self._form.wires[message.level].unpack(rows, numbers)
        wrong = np.flatnonzero(~np.isfinite(numbers).all(axis=1))
        if wrong.size:
            found = numbers[wrong[0]][~np.isfinite(numbers[wrong[0]])][0]
            raise ExchangeError(
                f"rank {self._rank}, stage {message.stage}: row {slot_rows[message.slots[wrong[0]]]} is about to go to "
                f"rank {message.peer} with {found} in it; {wrong.size} of the {message.num_rows} rows of the message "
                "are not finite"
            )

    def _check(self, message: Message, num_bytes: int, expected: int) -> None:
        if expected == 0:  # the rows stay where they are
            self._counter.received(message.level, message.num_rows, num_bytes)
            self._counter.loaded[message.level] += message.num_rows * self._row_bytes[message.level]
        else:
            self._counter.received(message.level, num_bytes // self._row_bytes[message.level], num_bytes)
        if num_bytes != expected:
            raise ExchangeError(
                f"rank {self._rank}, stage {message.stage}: {num_bytes} bytes came from rank {message.peer}, "
                f"but the plan says {expected} ({message.num_rows} rows)"
            )


def _rotated(schedule: Schedule, rank: int) -> list[int]:
    """Return the sends that wait for nothing, those of a stage from the next rank on: not all to one peer at once.

    Sends that were dealt out to rounds stay in their order.
    """
    sends = schedule.sends
    first = [index for index, waits in enumerate(schedule.send_waits) if waits == 0]
    if schedule.dealt:
        return first
    stages = groupby(first, key=lambda index: sends[index].stage)
    return [
        index for _, stage in stages for index in sorted(stage, key=lambda index: (sends[index].peer < rank, index))
    ]
