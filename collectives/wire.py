"""What rows are on their way: as they lie, a shorter dtype of the same kind, bfloat16, or int8 with a scale a row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from sparsecomm.errors import InputError
from sparsecomm.typing import IntGlobal

Rows = npt.NDArray[Any]
WireDtype = npt.DTypeLike | Sequence[npt.DTypeLike | None] | None  # one, or one for each level

_SHORT: Final = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


class WireFormat(ABC):
    """How one level carries rows.

    Args:
        name: of the format.
        dtype: of the arrays that travel, (num_rows, `columns(width)`).
    """

    name: str
    dtype: np.dtype[Any]

    def __repr__(self) -> str:
        return self.name

    def columns(self, width: int) -> int:
        """Return the columns, of `dtype`, of a row of `width` numbers as it travels."""
        return width

    def row_bytes(self, width: int) -> int:
        """Return the bytes of a row as it travels."""
        return self.columns(width) * self.dtype.itemsize

    @abstractmethod
    def pack(self, slots: Rows, index: IntGlobal, rows: Rows, scratch: Rows) -> None:
        """Write `slots[index]` into `rows`, which travel; `scratch` holds as many slots."""

    @abstractmethod
    def unpack(self, rows: Rows, slots: Rows) -> None:
        """Write rows that came over the wire into `slots`, as many."""

    def rounded(self, slots: Rows) -> Rows:
        """Return what is left of rows after they travelled."""
        rows = np.empty((len(slots), self.columns(slots.shape[1])), dtype=self.dtype)
        self.pack(slots, np.arange(len(slots)), rows, np.empty_like(slots))
        found = np.empty_like(slots)
        self.unpack(rows, found)
        return found

    @staticmethod
    def of(given: npt.DTypeLike | None, slot: np.dtype[Any]) -> WireFormat:
        """Return the format of a dtype or a name, for rows of dtype `slot`; None is `slot` itself.

        Raises:
            InputError: there is none of that name, or rows of `slot` cannot travel so.
        """
        name = _name_of(given, slot)
        if slot.kind == "f" and name in _CODED:
            return _checked(_CODED[name](), slot)
        try:
            dtype = np.dtype(name)
        except TypeError as err:
            raise InputError(
                f"no wire format {name!r}; give float32, float16, bfloat16, int8, or a dtype of numpy"
            ) from err
        if dtype != slot and (dtype.kind != slot.kind or dtype.kind == "i"):
            raise InputError(
                f"rows of {slot} cannot travel as {dtype}; give a float, bfloat16 or int8 for floats, "
                "a complex for complex"
            )
        return Cast(dtype)


class Cast(WireFormat):
    """A dtype of numpy: relative errors of half a unit in its last place."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.name, self.dtype = str(dtype), dtype

    def pack(self, slots: Rows, index: IntGlobal, rows: Rows, scratch: Rows) -> None:
        # Slots are inside their range by construction; the mode keeps numpy from buffering the whole output.
        if self.dtype == slots.dtype:
            slots.take(index, 0, rows, "clip")
            return
        some = scratch[: index.size]
        slots.take(index, 0, some, "clip")
        np.copyto(rows, some, casting="same_kind")

    def unpack(self, rows: Rows, slots: Rows) -> None:
        np.copyto(slots, rows, casting="same_kind")


class BFloat16(WireFormat):
    """The upper half of a float32, rounded to nearest even: every number within 2^-8 of itself, relatively.

    Numbers below 1e-38 lose more; beyond the range of float32 they become infinite. NaN stays NaN.
    """

    name, dtype = "bfloat16", np.dtype(np.uint16)

    def pack(self, slots: Rows, index: IntGlobal, rows: Rows, scratch: Rows) -> None:
        from sparsecomm.collectives.wire_loops import pack_bfloat16

        pack_bfloat16(slots, index, rows)

    def unpack(self, rows: Rows, slots: Rows) -> None:
        from sparsecomm.collectives.wire_loops import unpack_bfloat16

        unpack_bfloat16(rows, slots)


class Int8(WireFormat):
    """Multiples, -127 to 127, of a float32 scale a row, the largest of the row over 127.

    Every number is within max|row| / 253 of itself (half a scale, and the rounding of the scale). A row with a NaN,
    an infinity, or a number beyond the range of float32 arrives as NaN.
    """

    name, dtype = "int8", np.dtype(np.uint8)

    def columns(self, width: int) -> int:
        return width + 4

    def pack(self, slots: Rows, index: IntGlobal, rows: Rows, scratch: Rows) -> None:
        from sparsecomm.collectives.wire_loops import pack_int8

        pack_int8(slots, index, rows)

    def unpack(self, rows: Rows, slots: Rows) -> None:
        from sparsecomm.collectives.wire_loops import unpack_int8

        unpack_int8(rows, slots)


_CODED: Final[dict[str, type[BFloat16] | type[Int8]]] = {"bfloat16": BFloat16, "int8": Int8}


def _name_of(given: npt.DTypeLike | None, slot: np.dtype[Any]) -> str:
    if given is None:
        return str(slot)
    if isinstance(given, str):
        return _SHORT.get(given, given)
    return str(getattr(given, "__name__", given))  # of a class its name: numpy need not know a bfloat16


def _checked(wire: WireFormat, slot: np.dtype[Any]) -> WireFormat:
    if slot not in (np.float32, np.float64):
        raise InputError(f"rows of {slot} cannot travel as {wire}; it carries float32 and float64")
    return wire


@dataclass(frozen=True, slots=True)
class RowFormat:
    """What a row is: in a slot, and on its way.

    Args:
        width: columns, at least 1.
        dtype: of the slots and of all sums.
        wires: format on the wire, by level.
    """

    width: int
    dtype: np.dtype[Any]
    wires: tuple[WireFormat, ...]

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
        return RowFormat(int(width), slot, wires_of(wire_dtype, slot, num_levels))

    @property
    def row_bytes(self) -> tuple[int, ...]:
        """Bytes of a row on the wire, by level."""
        return tuple(wire.row_bytes(self.width) for wire in self.wires)

    def rounds(self, level: int) -> bool:
        """Say whether rows change on their way."""
        return self.wires[level].name != str(self.dtype)


def wires_of(wire_dtype: WireDtype, slot: np.dtype[Any], num_levels: int) -> tuple[WireFormat, ...]:
    """Return the format of every level.

    Raises:
        InputError: there is not one for each, or one cannot be.
    """
    given: Sequence[Any] = wire_dtype if isinstance(wire_dtype, list | tuple) else [wire_dtype] * num_levels
    if len(given) != num_levels:
        raise InputError(f"{len(given)} wire dtypes for {num_levels} levels; give one, or one for each level")
    return tuple(WireFormat.of(wire, slot) for wire in given)
