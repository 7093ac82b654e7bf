"""Matrix Market files (`.mtx`, `.mtx.gz`), read by scipy once the header has been held against the file."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import scipy.io
from scipy.sparse import coo_array, csr_array

from sparsecomm.errors import InputError
from sparsecomm.io.csr import Matrix, floating
from sparsecomm.io.limits import check_shape
from sparsecomm.io.text import read_text

# The shortest line of each field, "1 1 1\n" for a real entry; an array lists values only.
_COORDINATE_BYTES = {"pattern": 4, "complex": 8}
_ARRAY_BYTES = {"complex": 4}


@dataclass(frozen=True, slots=True)
class _Header:
    """The header of a Matrix Market file; `entries` counts the lines that must follow it."""

    rows: int
    cols: int
    entries: int
    layout: str
    field: str
    symmetry: str

    @property
    def line_bytes(self) -> int:
        if self.layout == "array":
            return _ARRAY_BYTES.get(self.field, 2)
        return _COORDINATE_BYTES.get(self.field, 6)


def read_mtx(path: Path, *, one_based: bool = False) -> Matrix:
    """Read a Matrix Market file; pattern entries become 1.0, symmetric ones are mirrored.

    A file in array layout has no pattern of its own: its nonzero values are the entries.

    Args:
        path: the file.
        one_based: not used, the format counts from 1 by definition.
    """
    text = read_text(path)
    header = _read_header(text)
    _check_header(header, len(text))
    found = _parse(text, header)
    if header.layout == "array":
        return csr_array(floating(found))
    entries: coo_array[Any] = coo_array(found)
    entries.data = floating(entries.data)
    matrix: Matrix = entries.tocsr()
    if header.symmetry != "general" and matrix.nnz < entries.nnz:
        _check_triangle(text, header.symmetry)
    return matrix


def _read_header(text: bytes) -> _Header:
    try:
        rows, cols, entries, layout, field, symmetry = scipy.io.mminfo(io.BytesIO(text))
    except (ValueError, OverflowError) as err:
        raise InputError(
            f"has no Matrix Market header ({err}); expected '%%MatrixMarket matrix coordinate real general',"
            " comments, then 'ROWS COLS ENTRIES'"
        ) from err
    if layout == "array":
        # scipy's product of rows and columns wraps at 64 bits.
        entries = rows * cols if symmetry == "general" else rows * (rows - 1) // 2
    return _Header(rows, cols, entries, layout, field, symmetry)


def _check_header(header: _Header, num_bytes: int) -> None:
    """Refuse a header that promises more than the file can hold: scipy would allocate for it first."""
    check_shape(header.rows, header.cols, num_bytes)
    if header.symmetry != "general" and header.rows != header.cols:
        raise InputError(
            f"is declared {header.symmetry} but is {header.rows} x {header.cols}; expected a square matrix:"
            " write 'general' in its first line"
        )
    room = num_bytes // header.line_bytes
    if header.entries > room:
        raise InputError(
            f"promises {header.entries} entries but has room for at most {room} in {num_bytes} bytes of text;"
            " the file is cut short or its header is wrong: copy it again"
        )


def _parse(text: bytes, header: _Header) -> Any:
    try:
        return scipy.io.mmread(io.BytesIO(text))
    except (ValueError, OverflowError) as err:
        raise InputError(
            f"{_with_line(text, str(err))}; expected {header.entries} lines of {_expected(header)}:"
            " correct the line, or write 0-based entries as an edge list (.txt)"
        ) from err


def _with_line(text: bytes, message: str) -> str:
    """Return scipy's message, followed by the line that it names."""
    named = re.match(r"Line (\d+):", message)
    lines = text.split(b"\n", int(named[1])) if named else []
    if named is None or len(lines) < int(named[1]):
        return message.rstrip(".")
    line = lines[int(named[1]) - 1][:60].decode("ascii", "backslashreplace")
    return f"{message.rstrip('.')} ({line!r})"


def _expected(header: _Header) -> str:
    value = {"pattern": "", "complex": " REAL IMAGINARY"}.get(header.field, " VALUE")
    if header.layout == "array":
        return f"'{value.strip()}'"
    return f"'ROW COL{value}' with 1 <= ROW <= {header.rows} and 1 <= COL <= {header.cols}"


def _check_triangle(text: bytes, symmetry: str) -> None:
    """Refuse a symmetric file that stores both triangles: mirroring would double every value, silently.

    Reached only where some entry came twice, so the second parse is rare.
    """
    first, _, rest = text.partition(b"\n")
    stored: coo_array[Any] = coo_array(
        scipy.io.mmread(io.BytesIO(re.sub(rb"\S+\s*$", b"general", first) + b"\n" + rest))
    )
    rows, cols = stored.row, stored.col
    if (rows > cols).any() and (rows < cols).any():
        raise InputError(
            f"is declared {symmetry} but stores entries on both sides of the diagonal; expected one side only:"
            " write 'general' in its first line if both are stored"
        )
