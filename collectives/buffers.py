"""Memory of one run of an exchange: its slots, its message buffers, and how rows get from one to the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from sparsecomm.collectives.schedule import Message, Schedule
from sparsecomm.errors import InputError
from sparsecomm.typing import IntGlobal

Rows = npt.NDArray[Any]
Move = Callable[[], object]
WireDtype = npt.DTypeLike | Sequence[npt.DTypeLike | None] | None  # one, or one for each level

_CACHED_BYTES: Final = 1 << 18  # stays in the second level of a core's cache


@dataclass(frozen=True, slots=True)
class RowFormat:
    """What a row is: in a slot, and on its way.

    Args:
        width: columns, at least 1.
        dtype: of the slots and of all sums.
        wires: dtype on the wire, by level.
    """

    width: int
    dtype: np.dtype[Any]
    wires: tuple[np.dtype[Any], ...]

    @staticmethod
    def of(width: int, dtype: npt.DTypeLike, wire_dtype: WireDtype, num_levels: int) -> RowFormat:
        """Make a format from what an exchange is asked for.

        Raises:
            InputError: something of it cannot be.
        """
        if isinstance(width, bool) or not isinstance(width, int | np.integer) or width < 1:
            raise InputError(f"width must be a whole number of columns, at least 1, not {width!r}")
        slot = np.dtype(dtype)
        if slot.kind not in "ifc":
            raise InputError(f"an exchange moves integers, floats and complex numbers, not {slot}")
        given: Sequence[Any] = wire_dtype if isinstance(wire_dtype, list | tuple) else [wire_dtype] * num_levels
        if len(given) != num_levels:
            raise InputError(f"{len(given)} wire dtypes for {num_levels} levels; give one, or one for each level")
        wires = tuple(slot if wire is None else np.dtype(wire) for wire in given)
        for wire in wires:
            if wire != slot and (wire.kind != slot.kind or wire.kind == "i"):
                raise InputError(
                    f"rows of {slot} cannot travel as {wire}; give a float for floats, a complex for complex"
                )
        return RowFormat(int(width), slot, wires)

    @property
    def row_bytes(self) -> tuple[int, ...]:
        """Bytes of a row on the wire, by level."""
        return tuple(self.width * wire.itemsize for wire in self.wires)


class Shelf:
    """Memory for arrays that are made anew now and then, in the same order each time; it grows and never shrinks.

    New pages of memory cost more than the copies that first fill them.
    """

    def __init__(self) -> None:
        self._parts: list[npt.NDArray[np.uint8]] = []
        self._next = 0

    def rewind(self) -> None:
        """Give the memory of all arrays made so far to those that are made from now on."""
        self._next = 0

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return an uninitialised array."""
        num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        if self._next == len(self._parts):
            self._parts.append(np.empty(num_bytes, dtype=np.uint8))
        elif self._parts[self._next].size < num_bytes:
            self._parts[self._next] = np.empty(num_bytes + num_bytes // 2, dtype=np.uint8)
        self._next += 1
        return self._parts[self._next - 1][:num_bytes].view(dtype).reshape(shape)


class BufferSet:
    """Slots and message buffers of one run; made once, used again and again.

    Args:
        schedule: of the direction. An arrival is stored where it is the first in its slot, and added elsewhere.
        form: of the rows.
        scratch: (num_rows, width) slots, as many as the rows of the longest message; any move may overwrite it.
        shelf: gives the memory.
    """

    def __init__(self, schedule: Schedule, form: RowFormat, scratch: Rows, shelf: Shelf) -> None:
        shelf.rewind()
        self.slots: Rows = shelf.empty((schedule.num_slots, form.width), form.dtype)
        direct = [self._in_place(message, form) for message in schedule.sends]
        self.sends: list[Rows] = list(_memory(schedule.sends, direct, form, shelf))
        self.packs: list[Move | None] = [
            _gather(self.slots, message.slots, rows, scratch) if place is None else None
            for message, rows, place in zip(schedule.sends, self.sends, direct, strict=True)
        ]
        direct = [self._in_place(message, form) for message in schedule.recvs]
        self.recvs: list[Rows] = list(_memory(schedule.recvs, direct, form, shelf))
        self.unpacks: list[Move | None] = [
            _take_in(self.slots, message, rows, scratch) if place is None else None
            for message, rows, place in zip(schedule.recvs, self.recvs, direct, strict=True)
        ]

    def _in_place(self, message: Message, form: RowFormat) -> Rows | None:
        """Return the slots of a message if the transport can read or write them as they lie."""
        same = form.wires[message.level] == form.dtype
        return _block(self.slots, message.slots) if same and message.fresh.all() else None


def scratch_for(schedule: Schedule, form: RowFormat, shelf: Shelf) -> Rows:
    """Return scratch for all buffer sets of a direction; an exchange moves one message at a time."""
    most = max((message.num_rows for message in (*schedule.sends, *schedule.recvs)), default=0)
    shelf.rewind()
    return shelf.empty((most, form.width), form.dtype)


def add_rows(target: Rows, index: IntGlobal, rows: Rows, scratch: Rows) -> None:
    """Add `rows[i]` to `target[index[i]]` in blocks that fit the scratch and the cache; `index` names no row twice."""
    num_rows = max(1, min(len(scratch), _CACHED_BYTES // max(rows.itemsize * rows.shape[1], 1)))
    for begin in range(0, index.size, num_rows):
        part = slice(begin, begin + num_rows)
        some = scratch[: index[part].size]
        target.take(index[part], 0, some, "clip")
        np.add(some, rows[part], out=some)
        target[index[part]] = some


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
        rows, end = shelf.empty((num_rows, form.width), form.wires[pairs[0][0].level]), 0
        for message, place in pairs:
            end += message.num_rows if place is None else 0
            yield rows[end - message.num_rows : end] if place is None else place


def _block(slots: Rows, index: IntGlobal) -> Rows | None:
    """Return the slots `index` as a view if they lie side by side in ascending order."""
    if index.size == 0 or (np.diff(index) != 1).any():
        return None
    return slots[index[0] : index[-1] + 1]


def _gather(slots: Rows, index: IntGlobal, rows: Rows, scratch: Rows) -> Move:
    block = _block(slots, index)
    if block is not None:
        return partial(np.copyto, rows, block, casting="same_kind")
    # Slots are inside their range by construction; the mode keeps numpy from buffering the whole output.
    if rows.dtype == slots.dtype:
        return partial(slots.take, index, 0, rows, "clip")
    some = scratch[: index.size]

    def take_and_cast() -> None:
        slots.take(index, 0, some, "clip")
        np.copyto(rows, some, casting="same_kind")

    return take_and_cast


def _take_in(slots: Rows, message: Message, rows: Rows, scratch: Rows) -> Move:
    if message.fresh.all():
        return _store(slots, message.slots, rows)
    add = _add(slots, message.slots, rows, scratch)
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
