"""Edge lists (`.txt`, `.tsv`, `.edges`, each also `.gz`): a line `FROM TO [VALUE]` for every entry."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsecomm.errors import InputError
from sparsecomm.io.csr import Matrix, from_entries
from sparsecomm.io.limits import check_shape
from sparsecomm.io.text import read_text

_COMMENT = re.compile(rb"^[ \t]*[#%][^\n]*", re.MULTILINE)
_INTEGER = re.compile(rb"[+-]?\d{1,18}")


def read_edges(path: Path, *, one_based: bool = False) -> Matrix:
    """Read an edge list: directed as stored, square, with as many rows as the largest vertex asks for.

    Args:
        path: the file.
        one_based: vertices are counted from 1 instead of from 0.
    """
    text = read_text(path)
    table = _parse(_COMMENT.sub(b"", text))
    base = int(one_based)
    _check_vertices(table, base)
    num_vertices = max(int(table["from"].max()), int(table["to"].max())) + 1 - base
    check_shape(num_vertices, num_vertices, len(text))
    values = table["value"] if "value" in (table.dtype.names or ()) else np.ones(table.size)
    return from_entries(table["from"] - base, table["to"] - base, values, (num_vertices, num_vertices))


def _parse(text: bytes) -> npt.NDArray[Any]:
    """Return the columns `from`, `to` and, where the first line has it, `value`."""
    first = re.search(rb"[!-~][^\n]*", text)
    if first is None:
        raise InputError("has no edges; expected lines 'FROM TO [VALUE]'")
    columns = [("from", np.int64), ("to", np.int64), ("value", np.float64)]
    num_columns = min(max(len(first[0].split()), 2), 3)
    try:
        return np.loadtxt(io.BytesIO(text), np.dtype(columns[:num_columns]), comments=None, ndmin=1)
    except ValueError as err:
        raise InputError(
            f"{_first_bad_line(text, num_columns) or err}; expected {num_columns} columns 'FROM TO [VALUE]' on every"
            " line, whole numbers and a value, between blanks or tabs; comments begin with # or %"
        ) from err


def _first_bad_line(text: bytes, num_columns: int) -> str | None:
    for number, line in enumerate(text.split(b"\n"), start=1):
        words = line.split()
        if words and not _is_edge(words, num_columns):
            return f"line {number} is {line[:60].decode('ascii', 'backslashreplace').strip()!r}"
    return None


def _is_edge(words: list[bytes], num_columns: int) -> bool:
    if len(words) != num_columns or not all(_INTEGER.fullmatch(word) for word in words[:2]):
        return False
    try:
        return all(float(word) is not None for word in words[2:])
    except ValueError:
        return False


def _check_vertices(table: npt.NDArray[Any], base: int) -> None:
    bad = (table["from"] < base) | (table["to"] < base)
    if bad.any():
        edge = table[int(np.argmax(bad))]
        cure = "the file counts from 0: drop --one-based" if base else "vertices cannot be negative"
        raise InputError(
            f"edge {int(edge['from'])} -> {int(edge['to'])} has a vertex below {base}; expected {base} or more: {cure}"
        )
