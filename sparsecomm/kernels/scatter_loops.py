"""The compiled loops of the transposed product, which scatter; imported where they run.

What they are written with comes from another file, whose date numba does not look at: touch this one when that changes.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import cfunc, types
from numba.extending import intrinsic

from sparsecomm.kernels import frame as word
from sparsecomm.kernels.form import Form
from sparsecomm.kernels.frame_reader import array_at, block_at
from sparsecomm.kernels.loops import ENTRY
from sparsecomm.kernels.tile import Nonzeros, rows_of, tile_of


@intrinsic(prefer_literal=True)
def _scatter_tile(
    typing: Any, data: Any, indices: Any, begin: Any, end: Any, x: Any, out: Any, row: Any, column: Any,
    rest: Any, lanes: Any, vectors: Any, masked: Any,
) -> Any:  # fmt: skip
    """Add the row's nonzeros times a tile of `x[row]` to tiles of `out`, whose rows are the columns of the matrix."""

    def write(context: Any, build: Any, signature: Any, values: Any) -> Any:
        kinds = signature.args
        tile = tile_of(context, build, x, values[8], (lanes, vectors, masked))
        source, target = (rows_of(context, build, kinds[at], values[at], values[7]) for at in (4, 5))
        nonzeros, factors = Nonzeros(context, build, kinds, values), tile.load(source(values[6]))

        def body(at: Any, nothing: list[Any]) -> list[Any]:
            place = target(nonzeros.index(at))
            tile.store(place, tile.add_product(tile.load(place), nonzeros.value(at), factors))
            return nothing

        nonzeros.loop([], body)
        return context.get_dummy_value()

    words = [types.int64] * 3
    return types.void(data, indices, types.int64, types.int64, x, out, *words, lanes, vectors, masked), write


@cache
def scatter_rows(form: Form, entry: str, index: str) -> Any:
    """Return the loop `out += matrix.T @ x` for some columns of the matrix; see `gather_rows`.

    The starts of rows are `first` to `last` of the frame's; so many further on are their ends.
    """
    lanes, vectors, tail, masked, *_ = form
    full, last_vectors = lanes * vectors, max(tail, 1)

    @cfunc(ENTRY, cache=True)
    def loop(frame: int, line: int) -> None:
        words: Any = array_at(frame, word.SIZE, "q")  # type: ignore[call-arg]
        part: Any = array_at(line, word.LINE, "q")
        starts = array_at(words[word.STARTS], 0, index)
        indices = array_at(words[word.INDICES], 0, index)
        data = array_at(words[word.VALUES], 0, entry)
        x = block_at(words[word.X], words[word.X_STRIDE], entry)
        out = block_at(words[word.OUT], words[word.OUT_STRIDE], entry)
        first, tiles, rest = part[word.FIRST], part[word.TILES], part[word.REST]
        rows = part[word.LAST] - first
        for row in range(rows):
            begin, end = starts[first + row], starts[first + rows + row]
            for tile in range(tiles):
                _scatter_tile(data, indices, begin, end, x, out, row, tile * full, 0, lanes, vectors, False)
            if tail:
                _scatter_tile(data, indices, begin, end, x, out, row, tiles * full, rest, lanes, last_vectors, masked)

    return loop
