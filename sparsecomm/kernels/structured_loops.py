"""The compiled loops of packed weights; imported where they run.

Tiles of X are copied, so that their rows follow each other, in blocks that stay in the nearest cache while all rows of
the weights go over them. Sums are kept in the result from one block to the next.

What they are written with comes from other files, whose date numba does not look at: touch this one when those change.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import cfunc, njit, types
from numba.extending import intrinsic

from sparsecomm.kernels import frame as word
from sparsecomm.kernels.form import Form, vector_unit
from sparsecomm.kernels.frame_reader import array_at, block_at
from sparsecomm.kernels.loops import ENTRY
from sparsecomm.kernels.tile import Nonzeros, begin_sums, rows_of, splat, tile_of

_INT: Final = ir.IntType(64)
_BYTE: Final = ir.IntType(8)
_WORD: Final = ir.IntType(32)
_BLOCK_BYTES: Final = 1 << 15  # of X, in a nearest cache of 32 or 48 KiB; twice as much is no slower
_EIGHT: Final = 8  # entries that are unpacked at a time; so many groups begin at whole bytes
_MOST_ROWS: Final = 8  # at a time: a narrow tile has few sums, and each waits for its last addition
_LINE_BYTES: Final = 64
_SHARED: Final = 4  # columns of every group that rows share


@intrinsic(prefer_literal=True)
def _packed_tile(
    typing: Any, data: Any, places: Any, begin: Any, end: Any, x: Any, out: Any, row: Any, column: Any, keep: Any,
    rest: Any, size: Any, rows: Any, lanes: Any, vectors: Any, masked: Any, fused: Any,
) -> Any:  # fmt: skip
    """Set a tile of `rows` rows of `out` to their entries times tiles of X, added to what is there if `keep`.

    The rows of `data` are `size` entries apart, those of `places` `end`. Places are bytes from the begin of X.
    """

    def write(context: Any, build: Any, signature: Any, values: Any) -> Any:
        count, kinds = vectors.literal_value, signature.args
        tile = tile_of(context, build, x, values[9], (lanes, vectors, masked))
        whole = tile_of(context, build, x, values[9], (lanes, vectors, types.literal(False)))  # type: ignore[no-untyped-call]
        target = rows_of(context, build, kinds[5], values[5], values[7])
        source = build.bitcast(context.make_array(kinds[4])(context, build, values[4]).data, _BYTE.as_pointer())
        nonzeros, numbers = Nonzeros(context, build, kinds, values), range(rows.literal_value)
        steps = [ir.Constant(_INT, number) for number in numbers]
        results = [target(build.add(values[6], step)) for step in steps]
        apart = [(build.mul(values[10], step), build.mul(values[3], step)) for step in steps]

        def body(at: Any, sums: list[Any]) -> list[Any]:
            following: list[Any] = []
            for number, (entries, indices) in enumerate(apart):
                value = nonzeros.value(build.add(entries, at))
                factors = whole.load(build.gep(source, [nonzeros.index(build.add(indices, at))]))
                own = sums[number * count : (number + 1) * count]
                following += tile.add_product(own, value, factors, bool(fused.literal_value))
            return following

        starts = [start for result in results for start in begin_sums(build, tile, result, values[8])]
        sums = nonzeros.loop(starts, body)
        for number, result in enumerate(results):
            tile.store(result, sums[number * count : (number + 1) * count])
        return context.get_dummy_value()

    words = [types.int64] * 2 + [types.boolean] + [types.int64] * 2
    literals = (rows, lanes, vectors, masked, fused)
    return types.void(data, places, types.int64, types.int64, x, out, *words, *literals), write


@intrinsic
def _unpack_eight(typing: Any, offsets: Any, bits: Any, scale: Any, starts: Any, places: Any) -> Any:
    """Write eight `places`: `starts` plus the offsets of so many bits, times `scale`. All but these are addresses."""

    def write(context: Any, build: Any, signature: Any, values: Any) -> Any:
        long, short = (ir.VectorType(kind, _EIGHT) for kind in (_INT, _WORD))
        at_offsets, bits, scale, at_starts, at_places = values
        packed = build.load(build.inttoptr(at_offsets, _INT.as_pointer()))
        packed.align = 1
        shifts = build.mul(ir.Constant(long, list(range(_EIGHT))), splat(build, bits, _EIGHT))
        ones = build.sub(build.shl(ir.Constant(_INT, 1), bits), ir.Constant(_INT, 1))
        offsets = build.and_(build.lshr(splat(build, packed, _EIGHT), shifts), splat(build, ones, _EIGHT))
        steps = build.mul(build.trunc(offsets, short), splat(build, build.trunc(scale, _WORD), _EIGHT))
        first = build.load(build.inttoptr(at_starts, short.as_pointer()))
        first.align = 4
        build.store(build.add(first, steps), build.inttoptr(at_places, short.as_pointer())).align = 4
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), write


@njit(nogil=True, cache=True)
def _unpack_row(
    offsets: int, bits: int, starts: Any, places: Any, first: int, count: int, columns: Any, left: int, row_bytes: int
) -> None:
    """Write `places[first:][:count]` of a row: bytes from the begin of a block, whose first row is `left` of X.

    Starts are places, or, where rows share columns, numbers of these.
    """
    scale = 1 if columns.size else row_bytes
    at_starts, at_places = starts.ctypes.data, places[first:].ctypes.data
    for eight in range(0, count, _EIGHT):
        _unpack_eight(offsets + (eight * bits >> 3), bits, scale, at_starts + 4 * eight, at_places + 4 * eight)  # type: ignore[call-arg]
    if columns.size:
        for at in range(first, first + count):
            places[at] = (columns[places[at]] - left) * row_bytes


def widest_tile(group: int, itemsize: int) -> int:
    """Return the columns of the widest tile for groups of so many rows of X."""
    num_bytes, registers = vector_unit()
    fitting = 2 * _BLOCK_BYTES // (_EIGHT * group * num_bytes)
    return max(1, min(registers // 2, fitting)) * (num_bytes // itemsize)


@cache
def structured_rows(form: Form, entry: str, stored: str) -> Any:
    """Return the loop `out[first:last, left:] = weights @ x[:, left:]` over packed weights; see `Structured`.

    It takes the addresses of a frame and of a part's line, for tiles that are all of a form. Rows of X from the `WIDTH`
    of the frame on are padding. Eight bytes after the last offset are read.

    Args:
        form: what it is specialised for; its tail, if any, is the only tile.
        entry: what numpy calls the type of an entry of X.
        stored: the same of the weights; `H` is float16.
    """
    lanes, vectors, _, masked, _, _, fused, _ = form
    full, itemsize, stored_bytes = lanes * vectors, np.dtype(entry).itemsize, np.dtype(stored).itemsize
    tile_bytes = full * itemsize
    together = max(1, min(_MOST_ROWS, vector_unit()[1] // 2 // vectors))

    @cfunc(ENTRY, cache=True)
    def loop(frame: int, line: int) -> None:
        words: Any = array_at(frame, word.SIZE, "q")  # type: ignore[call-arg]
        part: Any = array_at(line, word.LINE, "q")
        out = block_at(words[word.OUT], words[word.OUT_STRIDE], entry)
        size, kept, group, sharing = words[word.NONZEROS], words[word.KEPT], words[word.GROUP], words[word.SHARING]
        bits, last, groups = words[word.BITS], part[word.LAST], size // kept
        row_bytes, shared = (size * bits + 7) >> 3, groups * _SHARED if sharing else 0
        step = max(1, _BLOCK_BYTES // (_EIGHT * group * tile_bytes)) * _EIGHT
        memory = np.zeros(step * group * tile_bytes + _LINE_BYTES, np.uint8)
        copied = memory.ctypes.data + (-memory.ctypes.data & (_LINE_BYTES - 1))
        block = array_at(copied, step * group * full, entry)
        starts = np.empty(step * kept + _EIGHT, np.uint32)
        places = np.empty(together * step * kept + _EIGHT, np.uint32)
        used = lanes * (vectors - 1) + part[word.REST] if masked else full
        for tile in range(part[word.TILES]):
            left = part[word.LEFT] + tile * full
            for begin in range(0, max(1, groups), step):  # once where there are no groups: the result is zeros
                end = min(begin + step, groups)
                source = words[word.X] + begin * group * words[word.X_STRIDE] + left * itemsize
                inside, count = words[word.WIDTH] - begin * group, (end - begin) * kept
                for row in range((end - begin) * group):
                    own = array_at(copied + row * tile_bytes, used, entry)
                    if row < inside:
                        own[:] = array_at(source + row * words[word.X_STRIDE], used, entry)
                    else:
                        own[:] = 0
                for at in range(count):
                    starts[at] = (begin + at // kept) * _SHARED if sharing else at // kept * group * tile_bytes
                top = part[word.FIRST]
                while top < last:
                    rows = together if top + together <= last else 1
                    for row in range(rows):
                        offsets = words[word.INDICES] + (top + row) * row_bytes + (begin * kept * bits >> 3)
                        skipped = (top + row) // sharing * shared if sharing else 0
                        columns = array_at(words[word.COLUMNS] + 4 * skipped, shared, "i")
                        _unpack_row(
                            offsets, bits, starts, places, row * count, count, columns, begin * group, tile_bytes
                        )
                    data = array_at(words[word.VALUES] + (top * size + begin * kept) * stored_bytes, size, stored)
                    if rows == together:
                        _packed_tile(
                            data, places, 0, count, block, out, top, left, begin > 0, part[word.REST], size, together,
                            lanes, vectors, masked, fused,
                        )  # fmt: skip
                    else:
                        _packed_tile(
                            data, places, 0, count, block, out, top, left, begin > 0, part[word.REST], size, 1,
                            lanes, vectors, masked, fused,
                        )  # fmt: skip
                    top += rows
        memory[0] = starts[0] = places[0] = 0  # numba frees an array after its last use

    return loop
