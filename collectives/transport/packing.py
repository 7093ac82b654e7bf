"""Rows of a table as bytes, one block for each rank they go to."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np

from sparsecomm.collectives.transport.base import Bytes
from sparsecomm.errors import ExchangeError, InputError
from sparsecomm.table import Column, Table, stable_order
from sparsecomm.typing import IntGlobal, IntRank

_HEADER: Final = 16  # number of rows and code of the columns, both int64
_ALIGN: Final = 16  # columns begin at multiples of the largest itemsize, complex128


class _Field(NamedTuple):
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def num_bytes(self, num_rows: int) -> int:
        return num_rows * math.prod(self.shape) * self.dtype.itemsize


def pack_rows(table: Table, to_rank: IntRank, num_ranks: int) -> dict[int, Bytes]:
    """Return for every rank that is sent rows, ascending, a block of bytes with those rows in their order.

    Raises:
        InputError: a rank does not exist, or there is not one rank for every row.
    """
    if to_rank.shape != (len(table),):
        raise InputError(f"route needs one rank for each of {len(table)} rows, not an array {to_rank.shape}")
    if to_rank.size and (to_rank.min() < 0 or to_rank.max() >= num_ranks):
        raise InputError(f"route to rank {to_rank.min()} .. {to_rank.max()}, but ranks are 0 .. {num_ranks - 1}")
    order = stable_order(to_rank, num_ranks)
    ordered = to_rank[order]
    bounds = np.flatnonzero(np.diff(ordered, prepend=-1, append=num_ranks))
    fields = _fields(table)
    return {int(ordered[begin]): _pack(table, fields, order[begin:end]) for begin, end in pairwise(bounds)}


def unpack_rows(like: Table, rank: int, blocks: Mapping[int, Bytes]) -> Table:
    """Return the rows of blocks by rank of origin, in ascending order of it.

    Args:
        like: any table with the columns and dtypes that the senders' tables have; its rows do not matter.
        rank: the rank that the rows live on from now on.
        blocks: rank of origin -> what its `pack_rows` made for this rank.

    Raises:
        ExchangeError: a sender's table has other columns.
    """
    fields = _fields(like)
    parts = [_unpack(source, blocks[source], fields) for source in sorted(blocks)]
    columns = {field.name: _join(field, (part[field.name] for part in parts)) for field in fields}
    num_rows = sum(_header(block)[0] for block in blocks.values())
    return Table(np.full(num_rows, rank, dtype=np.int32), {name: columns[name] for name in like.columns})


def _fields(table: Table) -> list[_Field]:
    """Return the columns by name, so that their order in the dict does not matter."""
    return [_Field(name, table[name].dtype, table[name].shape[1:]) for name in sorted(table.columns)]


def _code(fields: list[_Field]) -> int:
    return zlib.crc32(repr([(field.name, field.dtype.str, field.shape) for field in fields]).encode())


def _places(fields: list[_Field], num_rows: int) -> list[int]:
    """Return where each column begins in a block, and at the end the size of the block."""
    places = [_HEADER]
    for field in fields:
        places.append(places[-1] + -(-field.num_bytes(num_rows) // _ALIGN) * _ALIGN)
    return places


def _view(block: Bytes, field: _Field, place: int, num_rows: int) -> Column:
    flat = block[place : place + field.num_bytes(num_rows)].view(field.dtype)
    return flat.reshape((num_rows, *field.shape))


def _pack(table: Table, fields: list[_Field], index: IntGlobal) -> Bytes:
    places = _places(fields, index.size)
    block = np.zeros(places[-1], dtype=np.uint8)
    block[:_HEADER].view(np.int64)[:] = index.size, _code(fields)
    for field, place in zip(fields, places[:-1], strict=True):
        np.take(table[field.name], index, axis=0, out=_view(block, field, place, index.size), mode="clip")
    return block


def _header(block: Bytes) -> tuple[int, int]:
    num_rows, code = block[:_HEADER].view(np.int64)
    return int(num_rows), int(code)


def _unpack(source: int, block: Bytes, fields: list[_Field]) -> dict[str, Column]:
    num_rows, code = _header(block)
    places = _places(fields, num_rows)
    if code != _code(fields) or places[-1] != block.size:
        mine = ", ".join(f"{field.name} {field.dtype}{list(field.shape)}" for field in fields)
        raise ExchangeError(f"rank {source} routed a table with other columns or dtypes than ({mine})")
    return {field.name: _view(block, field, place, num_rows) for field, place in zip(fields, places[:-1], strict=True)}


def _join(field: _Field, parts: Iterable[Column]) -> Column:
    return np.concatenate([np.empty((0, *field.shape), dtype=field.dtype), *parts])
