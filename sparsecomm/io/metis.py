"""Graphs in the text format of METIS (`.graph`, `.graph.gz`), as adjacency matrices."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparsecomm.errors import InputError
from sparsecomm.io.csr import Indices, Matrix, Values, from_entries
from sparsecomm.io.limits import check_shape
from sparsecomm.io.text import parse_integer_lines, read_text
from sparsecomm.typing import IntGlobal

_COMMENT = re.compile(rb"^[ \t]*%[^\n]*\n", re.MULTILINE)
_HEADER = re.compile(rb"\s*(\d{1,18})\s+(\d{1,18})(?:\s+([01]{1,3})(?:\s+(\d{1,18}))?)?\s*")


@dataclass(frozen=True, slots=True)
class _Header:
    """The first line: `num_own` numbers that describe the vertex open its line, then come its neighbours.

    Source: METIS 5.1 manual, section 4.1.1, "Graph file".
    """

    num_vertices: int
    num_edges: int
    num_own: int
    weighted: bool


def read_metis(path: Path, *, one_based: bool = False) -> Matrix:
    """Read a METIS graph: entry (v, u) is the weight of the edge that the line of v lists, or 1.0.

    Args:
        path: the file.
        one_based: not used, the format counts from 1 by definition.
    """
    text = _COMMENT.sub(b"", read_text(path))
    first, _, body = text.partition(b"\n")
    header = _parse_header(first)
    check_shape(header.num_vertices, header.num_vertices, len(text))
    values, counts = parse_integer_lines(body)
    degrees = _degrees(_vertex_lines(counts, header), header)
    neighbours, weights = _split(values, degrees, header)
    rows = np.repeat(np.arange(header.num_vertices), degrees)
    _check_edges(rows, neighbours, header)
    return from_entries(rows, neighbours - 1, weights, (header.num_vertices, header.num_vertices))


def _parse_header(line: bytes) -> _Header:
    found = _HEADER.fullmatch(line)
    if found is None:
        text = line[:60].decode("ascii", "backslashreplace")
        raise InputError(
            f"begins with {text!r}; expected the METIS header 'VERTICES EDGES [FMT [NCON]]', FMT of 0s and 1s"
        )
    num_vertices, num_edges, fmt, ncon = found.groups()
    sizes, vertex_weights, edge_weights = (flag == "1" for flag in (fmt or b"").decode().zfill(3))
    num_own = sizes + (int(ncon or 1) if vertex_weights else 0)
    return _Header(int(num_vertices), int(num_edges), num_own, edge_weights)


def _vertex_lines(counts: IntGlobal, header: _Header) -> IntGlobal:
    """Return the number of values on the line of each vertex.

    Blank lines may follow the last vertex, and a last vertex without neighbours may lack its (blank) line, as a
    file without a final newline shows none.
    """
    filled = int(np.flatnonzero(counts)[-1]) + 1 if counts.any() else 0
    if filled > header.num_vertices or counts.size < header.num_vertices - 1:
        raise InputError(
            f"has {max(filled, min(counts.size, header.num_vertices))} lines after the header; expected"
            f" {header.num_vertices}, one for each vertex (a blank one if it has no neighbours)"
        )
    return np.append(counts, 0)[: header.num_vertices]


def _degrees(counts: IntGlobal, header: _Header) -> IntGlobal:
    """Return the number of neighbours of each vertex."""
    per_edge = 2 if header.weighted else 1
    rest = counts - header.num_own
    bad = (rest < 0) | (rest % per_edge != 0)
    if bad.any():
        vertex = int(np.argmax(bad))
        raise InputError(
            f"vertex {vertex + 1} has {int(counts[vertex])} numbers on its line; expected {header.num_own} of its"
            f" own and {per_edge} for each neighbour: check FMT and NCON in the header"
        )
    return rest // per_edge


def _split(values: IntGlobal, degrees: IntGlobal, header: _Header) -> tuple[IntGlobal, Values]:
    """Return the neighbours (counted from 1) and edge weights of all vertices, end to end."""
    if header.num_own:
        per_edge = 2 if header.weighted else 1
        lengths = header.num_own + per_edge * degrees
        line_start = np.cumsum(lengths) - lengths
        place = np.arange(values.size) - np.repeat(line_start, lengths)
        values = values[place >= header.num_own]
    if header.weighted:
        return values[::2], values[1::2]
    return values, np.ones(values.size)


def _check_edges(rows: Indices, neighbours: IntGlobal, header: _Header) -> None:
    bad = (neighbours < 1) | (neighbours > header.num_vertices)
    if bad.any():
        at = int(np.argmax(bad))
        raise InputError(
            f"vertex {int(rows[at]) + 1} has neighbour {int(neighbours[at])}; expected 1 to"
            f" {header.num_vertices}: METIS counts from 1"
        )
    if neighbours.size != 2 * header.num_edges:
        raise InputError(
            f"lists {neighbours.size} neighbours but its header says {header.num_edges} edges; expected"
            f" {2 * header.num_edges}, as each edge is listed at both ends: correct the header"
        )
