"""Memory of one run of an exchange: its slots, its message buffers, and how rows get from one to the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from sparsecomm.collectives.delta import DeltaRecv, DeltaSend, message_bytes
from sparsecomm.collectives.schedule import Message, Schedule
from sparsecomm.collectives.wire import Cast, RowFormat, Rows, WireFormat
from sparsecomm.typing import IntGlobal

Move = Callable[[], object]
Allocate = Callable[[int], npt.NDArray[np.uint8]]

_CACHED_BYTES: Final = 1 << 18  # stays in the second level of a core's cache


def host_memory(num_bytes: int) -> npt.NDArray[np.uint8]:
    """Return uninitialised memory."""
    return np.empty(num_bytes, dtype=np.uint8)


class Shelf:
    """Memory for arrays that are made anew now and then, in the same order each time; it grows and never shrinks.

    New pages of memory cost more than the copies that first fill them.
    """

    def __init__(self, allocate: Allocate = host_memory) -> None:
        self._allocate = allocate
        self._parts: list[npt.NDArray[np.uint8]] = []
        self._next = 0

    def rewind(self) -> None:
        """Give the memory of all arrays made so far to those that are made from now on."""
        self._next = 0

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return an uninitialised array."""
        num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        if self._next == len(self._parts):
            self._parts.append(self._allocate(num_bytes))
        elif self._parts[self._next].size < num_bytes:
            self._parts[self._next] = self._allocate(num_bytes + num_bytes // 2)
        self._next += 1
        return self._parts[self._next - 1][:num_bytes].view(dtype).reshape(shape)


class Scratch(NamedTuple):
    """Rows that any move may overwrite, as many as the longest message has.

    Args:
        slots: (num_rows, width).
        decoded: likewise, for rows of a wire format that numpy does not know; empty where there is none.
    """

    slots: Rows
    decoded: Rows


class Memory(NamedTuple):
    """Where the slots of one run lie.

    Args:
        slots: (num_slots, width), of this rank.
        source: what sends read; they number its rows.
        pulls: for each receive the rows of `source` to take in, None where they come in the message.
        num_shared: messages of so many levels carry no rows.
    """

    slots: Rows
    source: Rows
    pulls: Sequence[IntGlobal | None]
    num_shared: int

    @staticmethod
    def private(schedule: Schedule, form: RowFormat, shelf: Shelf) -> Memory:
        """Return memory that no other rank reads."""
        slots: Rows = shelf.empty((schedule.num_slots, form.width), form.dtype)
        return Memory(slots, slots, [None] * len(schedule.recvs), 0)


class BufferSet:
    """Slots and message buffers of one run; made once, used again and again.

    Args:
        schedule: of the direction. An arrival is stored where it is the first in its slot, and added elsewhere.
        form: of the rows.
        scratch: for all sets of the direction: an exchange moves one message at a time.
        shelf: gives the memory of messages.
        memory: of the slots.
        delta: whether messages hold only rows that changed since the run before.

    Attributes:
        sends, recvs: the rows of every message, as they travel.
        delta_sends, delta_recvs: what really travels, where a message holds only rows that changed; else None.
    """

    def __init__(
        self,
        schedule: Schedule,
        form: RowFormat,
        scratch: Scratch,
        shelf: Shelf,
        memory: Memory,
        delta: bool = False,
    ) -> None:
        self.slots, source, pulls, num_shared = memory

        def in_place(message: Message, slots: Rows) -> Rows | None:
            """Return the rows of a message if the transport can read or write them as they lie."""
            if message.level < num_shared:
                return slots[:0]
            plain = not delta and not form.rounds(message.level) and message.fresh.all()
            return _block(slots, message.slots) if plain else None

        direct = [in_place(message, source) for message in schedule.sends]
        self.sends: list[Rows] = list(_memory(schedule.sends, direct, form, shelf))
        self.packs: list[Move | None] = [
            _gather(source, message.slots, rows, scratch, form.wires[message.level]) if place is None else None
            for message, rows, place in zip(schedule.sends, self.sends, direct, strict=True)
        ]
        self.delta_sends = [
            DeltaSend(rows, _message(rows, shelf)) if delta and place is None else None
            for rows, place in zip(self.sends, direct, strict=True)
        ]
        direct = [in_place(message, self.slots) for message in schedule.recvs]
        self.recvs: list[Rows] = list(_memory(schedule.recvs, direct, form, shelf))
        self.unpacks: list[Move | None] = [
            _take_in(self.slots, message, rows, scratch, form.wires[message.level]) if place is None else None
            for message, rows, place in zip(schedule.recvs, self.recvs, direct, strict=True)
        ]
        self.delta_recvs = [
            DeltaRecv(rows, _message(rows, shelf)) if delta and place is None else None
            for rows, place in zip(self.recvs, direct, strict=True)
        ]
        for number, (message, rows_read) in enumerate(zip(schedule.recvs, pulls, strict=True)):
            if rows_read is not None:
                self.unpacks[number] = _pull(self.slots, message, source, rows_read, scratch)

    @property
    def out(self) -> list[Rows]:
        """What the transport sends."""
        return [d.message if d else rows for d, rows in zip(self.delta_sends, self.sends, strict=True)]

    @property
    def into(self) -> list[Rows]:
        """Where the transport puts what it receives."""
        return [d.message if d else rows for d, rows in zip(self.delta_recvs, self.recvs, strict=True)]


def scratch_for(schedule: Schedule, form: RowFormat, shelf: Shelf, *, decodes: bool = False) -> Scratch:
    """Return scratch for all buffer sets of a direction; `decodes` where rows are read from other memory."""
    most = max((message.num_rows for message in (*schedule.sends, *schedule.recvs)), default=0)
    decoded = most if decodes or not all(isinstance(wire, Cast) for wire in form.wires) else 0
    shelf.rewind()
    return Scratch(shelf.empty((most, form.width), form.dtype), shelf.empty((decoded, form.width), form.dtype))


def _message(rows: Rows, shelf: Shelf) -> Rows:
    return shelf.empty((message_bytes(rows),), np.uint8)


def add_rows(target: Rows, index: IntGlobal, rows: Rows, scratch: Rows) -> None:
    """Add `rows[i]` to `target[index[i]]` in blocks that fit the scratch and the cache; `index` names no row twice."""
    num_rows = max(1, min(len(scratch), _CACHED_BYTES // max(rows.itemsize * rows.shape[1], 1)))
    for begin in range(0, index.size, num_rows):
        part = slice(begin, begin + num_rows)
        some = scratch[: index[part].size]
        target.take(index[part], 0, some, "clip")
        np.add(some, rows[part], out=some)
        target[index[part]] = some


def same_memory(place: Rows, block: Rows) -> bool:
    """Return whether two arrays of one shape are the same elements of memory."""
    if place is block:
        return True
    if not np.may_share_memory(place, block):  # far cheaper than the question below
        return False
    same_start = place.__array_interface__["data"] == block.__array_interface__["data"]
    return same_start and place.strides == block.strides


def zero_of(dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return the scalar z with z + x == x bit for bit: the negative zero where there is one."""
    return np.negative(np.zeros((), dtype=dtype))


def _memory(
    messages: Sequence[Message], direct: Sequence[Rows | None], form: RowFormat, shelf: Shelf
) -> Iterator[Rows]:
    """Yield the rows of every message: in place, or its part of one array for all others of its stage."""
    for _, group in groupby(zip(messages, direct, strict=True), key=lambda pair: pair[0].stage):
        pairs = list(group)
        num_rows = sum(message.num_rows for message, place in pairs if place is None)
        wire = form.wires[pairs[0][0].level]
        rows, end = shelf.empty((num_rows, wire.columns(form.width)), wire.dtype), 0
        for message, place in pairs:
            end += message.num_rows if place is None else 0
            yield rows[end - message.num_rows : end] if place is None else place


def _block(slots: Rows, index: IntGlobal) -> Rows | None:
    """Return the slots `index` as a view if they lie side by side in ascending order."""
    if index.size == 0 or (np.diff(index) != 1).any():
        return None
    return slots[index[0] : index[-1] + 1]


def _gather(slots: Rows, index: IntGlobal, rows: Rows, scratch: Scratch, wire: WireFormat) -> Move:
    block = _block(slots, index)
    if block is not None and isinstance(wire, Cast):
        return partial(np.copyto, rows, block, casting="same_kind")
    if rows.dtype == slots.dtype:
        return partial(slots.take, index, 0, rows, "clip")
    return partial(wire.pack, slots, index, rows, scratch.slots)


def _take_in(slots: Rows, message: Message, rows: Rows, scratch: Scratch, wire: WireFormat) -> Move:
    if isinstance(wire, Cast):
        return _take_in_numbers(slots, message, rows, scratch)
    decoded = scratch.decoded[: message.num_rows]
    move = _take_in_numbers(slots, message, decoded, scratch)

    def decode_and_take_in() -> None:
        wire.unpack(rows, decoded)
        move()

    return decode_and_take_in


def _pull(slots: Rows, message: Message, source: Rows, index: IntGlobal, scratch: Scratch) -> Move:
    """Take in rows that lie in the memory of another rank."""
    block = _block(source, index)
    if block is not None:
        return _take_in_numbers(slots, message, block, scratch)
    read = scratch.decoded[: index.size]
    move = _take_in_numbers(slots, message, read, scratch)

    def read_and_take_in() -> None:
        source.take(index, 0, read, "clip")
        move()

    return read_and_take_in


def _take_in_numbers(slots: Rows, message: Message, rows: Rows, scratch: Scratch) -> Move:
    if message.fresh.all():
        return _store(slots, message.slots, rows)
    add = _add(slots, message.slots, rows, scratch.slots)
    if not message.fresh.any():
        return add
    fresh, zero = message.slots[message.fresh], zero_of(slots.dtype)

    def clear_and_add() -> None:
        slots[fresh] = zero
        add()

    return clear_and_add


def _store(slots: Rows, index: IntGlobal, rows: Rows) -> Move:
    block = _block(slots, index)
    return partial(np.copyto, block, rows) if block is not None else partial(slots.__setitem__, index, rows)


def _add(slots: Rows, index: IntGlobal, rows: Rows, scratch: Rows) -> Move:
    block = _block(slots, index)
    if block is not None:
        return partial(np.add, block, rows, out=block)
    return partial(add_rows, slots, index, rows, scratch)
