"""The loops of the local product, compiled by numba; imported where they run, never at the top of another module.

Every sum is 0 + a b + c d + ... in CSR order, each product and each sum rounded, as scipy's compiled loops do it:
results equal scipy's bit for bit, whatever the tiles, the threads and the order of the rows. Fused multiply-adds, which
round once, are a form of their own: other bits, but the same for all tiles, threads and orders too.

What they are written with comes from another file, whose date numba does not look at: touch this one when that changes.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from llvmlite import ir  # type: ignore[import-untyped]
from numba import cfunc, njit, types
from numba.extending import intrinsic

from sparsecomm.kernels import frame as word
from sparsecomm.kernels.form import Form
from sparsecomm.kernels.frame_reader import array_at, block_at, real_of
from sparsecomm.kernels.tile import Nonzeros, begin_sums, rows_of, tile_of, write_loop

_INT: Final = ir.IntType(64)
# Vectors of a tile so narrow that rows are multiplied two at a time; such a tile is all of the width.
_PAIRED: Final = 2
# Rows after which bias and bounds are applied: they are still in the nearest cache.
_FINISHED: Final = 16
ENTRY: Final = types.void(types.int64, types.int64)


@intrinsic(prefer_literal=True)
def gather_tile(
    typing: Any, data: Any, indices: Any, begin: Any, end: Any, x: Any, out: Any, row: Any, column: Any, keep: Any,
    rest: Any, ahead: Any, lanes: Any, vectors: Any, masked: Any, prefetch: Any, fused: Any, uniform: Any,
) -> Any:  # fmt: skip
    """Set a tile of `out[row]` to the row's nonzeros times tiles of X, added to what is there if `keep`."""

    def write(context: Any, build: Any, signature: Any, values: Any) -> Any:
        kinds = signature.args
        tile = tile_of(context, build, x, values[9], (lanes, vectors, masked))
        source, target = (rows_of(context, build, kinds[at], values[at], values[7]) for at in (4, 5))
        nonzeros = Nonzeros(context, build, kinds, values, bool(uniform.literal_value))
        place = target(values[6])
        start = begin_sums(build, tile, place, values[8])

        def body(at: Any, sums: list[Any]) -> list[Any]:
            if prefetch.literal_value:
                tile.prefetch(source(nonzeros.ahead(at, values[10])))
            return tile.add_product(
                sums, nonzeros.value(at), tile.load(source(nonzeros.index(at))), bool(fused.literal_value)
            )

        tile.store(place, nonzeros.loop(start, body))
        return context.get_dummy_value()

    words = [types.int64] * 2 + [types.boolean] + [types.int64] * 2
    literals = (lanes, vectors, masked, prefetch, fused, uniform)
    return types.void(data, indices, types.int64, types.int64, x, out, *words, *literals), write


@intrinsic(prefer_literal=True)
def _gather_pair(
    typing: Any, data: Any, indices: Any, begin: Any, middle: Any, x: Any, out: Any, row: Any, column: Any, keep: Any,
    rest: Any, ahead: Any, end: Any, lanes: Any, vectors: Any, masked: Any, prefetch: Any,
    fused: Any, uniform: Any,
) -> Any:  # fmt: skip
    """Set tiles of `out[row]` and the row after it, as `gather_tile` does.

    A narrow tile has few sums, and each waits for its last addition: two rows at once wait half as long.
    """

    def write(context: Any, build: Any, signature: Any, values: Any) -> Any:
        kinds = signature.args
        tile = tile_of(context, build, x, values[9], (lanes, vectors, masked))
        source, target = (rows_of(context, build, kinds[at], values[at], values[7]) for at in (4, 5))
        nonzeros = Nonzeros(context, build, kinds, values, bool(uniform.literal_value))
        (first, cut), last = values[2:4], values[11]
        places = [target(values[6]), target(build.add(values[6], ir.Constant(_INT, 1)))]
        starts = [begin_sums(build, tile, place, values[8]) for place in places]
        sizes = build.sub(cut, first), build.sub(last, cut)
        common = build.select(build.icmp_signed("<", *sizes), *sizes)

        def body(at: Any, sums: list[Any]) -> list[Any]:
            if prefetch.literal_value:
                tile.prefetch(source(nonzeros.ahead(at, values[10])))
            return tile.add_product(
                sums, nonzeros.value(at), tile.load(source(nonzeros.index(at))), bool(fused.literal_value)
            )

        def both(step: Any, sums: list[Any]) -> list[Any]:
            count = tile.vectors
            return [*body(build.add(first, step), sums[:count]), *body(build.add(cut, step), sums[count:])]

        sums = write_loop(build, ir.Constant(_INT, 0), common, [*starts[0], *starts[1]], both)
        parts = (sums[: tile.vectors], first, cut), (sums[tile.vectors :], cut, last)
        for place, (part, opening, closing) in zip(places, parts, strict=True):
            tile.store(place, write_loop(build, build.add(opening, common), closing, part, body))
        return context.get_dummy_value()

    words = [types.int64] * 2 + [types.boolean] + [types.int64] * 3
    literals = (lanes, vectors, masked, prefetch, fused, uniform)
    return types.void(data, indices, types.int64, types.int64, x, out, *words, *literals), write


@njit(nogil=True, cache=True)
def _finish_rows(
    out: Any, first: int, last: int, left: int, right: int, row_bias: Any, column_bias: Any, lower: Any, upper: Any
) -> None:
    for row in range(first, last):
        for at in range(left, right):
            value = out[row, at]
            if row_bias.size:
                value += row_bias[row]
            if column_bias.size:
                value += column_bias[at]
            out[row, at] = lower if value < lower else upper if value > upper else value


@cache
def gather_rows(form: Form, entry: str, index: str) -> Any:
    """Return the loop `out[first:last, left:] = finish(matrix @ x)`; `out` is added to where `keep`.

    It takes the addresses of a frame and of a part's line: `tiles` full tiles, then the tail with `rest` entries in its
    last vector. A bias of size 0 is none.

    Args:
        form: what it is specialised for.
        entry, index: what numpy calls the types of values and of indices.
    """
    lanes, vectors, tail, masked, prefetch, finish, fused, uniform = form
    full, last_vectors = lanes * vectors, max(tail, 1)

    @cfunc(ENTRY, cache=True)
    def loop(frame: int, line: int) -> None:
        words: Any = array_at(frame, word.SIZE, "q")  # type: ignore[call-arg]
        part: Any = array_at(line, word.LINE, "q")
        indptr = array_at(words[word.STARTS], 0, index)
        indices = array_at(words[word.INDICES], words[word.NONZEROS], index)
        data = array_at(words[word.VALUES], words[word.NONZEROS], entry)
        x = block_at(words[word.X], words[word.X_STRIDE], entry)
        out = block_at(words[word.OUT], words[word.OUT_STRIDE], entry)
        first, last, left, tiles, rest = (
            part[word.FIRST],
            part[word.LAST],
            part[word.LEFT],
            part[word.TILES],
            part[word.REST],
        )
        keep, ahead = words[word.KEEP] != 0, words[word.AHEAD]
        right = left + tiles * full
        width = tiles * full + (lanes * (tail - 1) + rest if tail else 0)
        for top in range(first, last, _FINISHED):
            bottom = min(top + _FINISHED, last)
            paired = (bottom - top) // 2 if vectors <= _PAIRED else 0
            for pair in range(paired):
                row = top + 2 * pair
                _gather_pair(
                    data, indices, indptr[row], indptr[row + 1], x, out, row, left, keep, rest, ahead, indptr[row + 2],
                    lanes, vectors, masked, prefetch, fused, uniform,
                )  # fmt: skip
            for row in range(top + 2 * paired, bottom):
                begin, end = indptr[row], indptr[row + 1]
                # LLVM divides 128-bit numbers for the length of a `while` loop, and that routine is not there.
                for tile in range(tiles):
                    at = left + tile * full
                    gather_tile(
                        data, indices, begin, end, x, out, row, at, keep, 0, ahead, lanes, vectors, False, prefetch,
                        fused, uniform,
                    )  # fmt: skip
                if tail:
                    gather_tile(
                        data, indices, begin, end, x, out, row, right, keep, rest, ahead, lanes, last_vectors, masked,
                        prefetch, fused, uniform,
                    )  # fmt: skip
            if finish:
                _finish_rows(
                    out, top, bottom, left, left + width,
                    array_at(words[word.ROW_BIAS], words[word.ROW_BIAS_SIZE], entry),
                    array_at(words[word.COLUMN_BIAS], words[word.COLUMN_BIAS_SIZE], entry),
                    real_of(words[word.LOWER]), real_of(words[word.UPPER]),
                )  # fmt: skip

    return loop
