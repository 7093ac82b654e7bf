"""Rows of a table as bytes, one block for each rank they go to; row numbers in the fewest bytes."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np

from sparsecomm.collectives.transport.base import Bytes
from sparsecomm.collectives.transport.index_codec import Code, Encoded, decode, encode
from sparsecomm.errors import ExchangeError, InputError
from sparsecomm.table import Column, Table, stable_order
from sparsecomm.typing import IntGlobal, IntRank

_HEADER: Final = 16  # two int64: of a block its rows and a hash of its columns, of numbers their least, size and code
_ALIGN: Final = 16  # columns begin at multiples of the largest itemsize, complex128
_CODE_BITS: Final = 5


class _Field(NamedTuple):
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def is_index(self) -> bool:
        """Whether the column holds numbers of rows or the like, which are encoded."""
        return self.dtype == np.int64 and not self.shape

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


def _pack(table: Table, fields: list[_Field], index: IntGlobal) -> Bytes:
    found = [encode(table[field.name][index]) if field.is_index else None for field in fields]
    sizes = [
        _HEADER + code.data.size if code else field.num_bytes(index.size)
        for code, field in zip(found, fields, strict=True)
    ]
    block = np.zeros(_HEADER + sum(map(_padded, sizes)), dtype=np.uint8)
    block[:_HEADER].view(np.int64)[:] = index.size, _code(fields)
    begin = _HEADER
    for field, code, size in zip(fields, found, sizes, strict=True):
        part = block[begin : begin + size]
        if code is None:
            np.take(table[field.name], index, axis=0, out=_as_rows(part, field, index.size), mode="clip")
        else:
            part[:_HEADER].view(np.int64)[:] = code.low, code.data.size << _CODE_BITS | code.code
            part[_HEADER:] = code.data
        begin += _padded(size)
    return block


def _padded(num_bytes: int) -> int:
    return -(-num_bytes // _ALIGN) * _ALIGN


def _as_rows(part: Bytes, field: _Field, num_rows: int) -> Column:
    return part.view(field.dtype).reshape((num_rows, *field.shape))


def _header(block: Bytes) -> tuple[int, int]:
    num_rows, code = block[:_HEADER].view(np.int64)
    return int(num_rows), int(code)


def _unpack(source: int, block: Bytes, fields: list[_Field]) -> dict[str, Column]:
    num_rows, code = _header(block)
    if code != _code(fields):
        mine = ", ".join(f"{field.name} {field.dtype}{list(field.shape)}" for field in fields)
        raise ExchangeError(f"rank {source} routed a table with other columns or dtypes than ({mine})")
    columns, begin = {}, _HEADER
    for field in fields:
        columns[field.name], size = _read(block[begin:], field, num_rows)
        begin += _padded(size)
    if begin != block.size:
        raise ExchangeError(f"{block.size} bytes of a table came from rank {source}, its columns take {begin}")
    return columns


def _read(data: Bytes, field: _Field, num_rows: int) -> tuple[Column, int]:
    """Return the column at the beginning of `data`, and its bytes."""
    if not field.is_index:
        size = field.num_bytes(num_rows)
        return _as_rows(data[:size], field, num_rows), size
    low, what = (int(number) for number in data[:_HEADER].view(np.int64))
    size = _HEADER + (what >> _CODE_BITS)
    return decode(Encoded(Code(what & ((1 << _CODE_BITS) - 1)), low, data[_HEADER:size]), num_rows), size


def _join(field: _Field, parts: Iterable[Column]) -> Column:
    return np.concatenate([np.empty((0, *field.shape), dtype=field.dtype), *parts])
