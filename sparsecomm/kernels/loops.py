"""The loops of the local product, compiled by numba; imported where they run, never at the top of another module.

One tile is a row of the matrix times some columns of X, its sums in vector registers. LLVM does not do this to a loop
over a width that it knows, so the tile is written in LLVM's own words; any width is a few tiles. Every sum is
0 + a b + c d + ... in CSR order, each product and each sum rounded, as scipy's compiled loops do it: results equal
scipy's bit for bit, whatever the tiles, the threads and the order of the rows. Fused multiply-adds, which round once,
are a form of their own: other bits, but the same for all tiles, threads and orders too.

Intrinsic and loops share a file, since numba looks at the date of one file to see whether its stored code is stale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic

from sparsecomm.kernels.form import Form

_BYTE: Final = ir.IntType(8)
_INT: Final = ir.IntType(64)
_FLAG: Final = ir.IntType(32)
_LINE_BYTES: Final = 64
# Vectors of a tile so narrow that rows are multiplied two at a time; such a tile is all of the width.
_PAIRED: Final = 2
# Rows after which bias and bounds are applied: they are still in the nearest cache.
_FINISHED: Final = 16


@dataclass(frozen=True, slots=True)
class Tile:
    """Writes the parts of a tile: vectors of one row of a dense block, in memory or in registers.

    Args:
        build: what writes.
        entry: type of an entry.
        itemsize: its bytes.
        lanes: entries of a vector.
        vectors: of the tile.
        mask: lanes of the last vector that are used; None is all.
        head: the same of the first.
    """

    build: Any
    entry: Any
    itemsize: int
    lanes: int
    vectors: int
    mask: Any
    head: Any = None

    @property
    def vector(self) -> Any:
        return ir.VectorType(self.entry, self.lanes)

    def load(self, base: Any) -> list[Any]:
        return [self._load(base, place) for place in range(self.vectors)]

    def store(self, base: Any, values: Sequence[Any]) -> None:
        for place, value in enumerate(values):
            mask = self._mask(place)
            if mask is not None:
                write = self._masked("store", ir.VoidType(), [self.vector], [])
                self.build.call(write, [value, self.at(base, place), ir.Constant(_FLAG, self.itemsize), mask])
            else:
                self.build.store(value, self.at(base, place)).align = self.itemsize

    def add_product(self, sums: Sequence[Any], factor: Any, values: Sequence[Any], fused: bool = False) -> list[Any]:
        spread = splat(self.build, factor, self.lanes)
        if fused:
            kind = ir.FunctionType(self.vector, [self.vector] * 3)
            name = f"llvm.fma.v{self.lanes}f{self.itemsize * 8}"
            call = self.build.module.declare_intrinsic(name, (), kind)
            return [self.build.call(call, [spread, value, one]) for one, value in zip(sums, values, strict=True)]
        products = [self.build.fmul(spread, value) for value in values]
        return [self.build.fadd(one, product) for one, product in zip(sums, products, strict=True)]

    def prefetch(self, base: Any) -> None:
        """Ask for the lines of a tile to come into all caches."""
        kind = ir.FunctionType(ir.VoidType(), [_BYTE.as_pointer(), _FLAG, _FLAG, _FLAG])
        call = self.build.module.declare_intrinsic("llvm.prefetch.p0", (), kind)
        read, keep, data = (ir.Constant(_FLAG, word) for word in (0, 3, 1))
        for offset in range(0, self.vectors * self.lanes * self.itemsize, _LINE_BYTES):
            self.build.call(call, [self.build.gep(base, [ir.Constant(_INT, offset)]), read, keep, data])

    def store_last(self, base: Any, value: Any) -> None:
        """Store the last vector only."""
        self.build.store(value, self.at(base, self.vectors - 1)).align = self.itemsize

    def spread(self, value: Any) -> Any:
        return splat(self.build, value, self.lanes)

    def zeros(self) -> list[Any]:
        return [ir.Constant(self.vector, None)] * self.vectors

    def read(self, base: Any, place: int) -> Any:
        """Load all lanes of a vector."""
        value = self.build.load(self.at(base, place))
        value.align = self.itemsize
        return value

    def _mask(self, place: int) -> Any:
        return self.mask if place == self.vectors - 1 else self.head if place == 0 else None

    def at(self, base: Any, place: int) -> Any:
        """Return where a vector lies."""
        offset = ir.Constant(_INT, place * self.lanes * self.itemsize)
        return self.build.bitcast(self.build.gep(base, [offset]), self.vector.as_pointer())

    def _load(self, base: Any, place: int) -> Any:
        mask = self._mask(place)
        if mask is None:
            return self.read(base, place)
        read = self._masked("load", self.vector, [], [self.vector])
        align, other = ir.Constant(_FLAG, self.itemsize), ir.Constant(self.vector, None)
        return self.build.call(read, [self.at(base, place), align, mask, other])

    def _masked(self, act: str, result: Any, before: list[Any], after: list[Any]) -> Any:
        mask = ir.VectorType(ir.IntType(1), self.lanes)
        kind = ir.FunctionType(result, [*before, self.vector.as_pointer(), _FLAG, mask, *after])
        name = f"llvm.masked.{act}.v{self.lanes}f{self.itemsize * 8}.p0"
        return self.build.module.declare_intrinsic(name, (), kind)


def splat(build: Any, value: Any, lanes: int) -> Any:
    """Write a vector whose lanes are all `value`."""
    kind = ir.VectorType(value.type, lanes)
    one = build.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_FLAG, 0))
    return build.shuffle_vector(one, ir.Constant(kind, ir.Undefined), ir.Constant(ir.VectorType(_FLAG, lanes), None))


class Nonzeros:
    """Writes the loop over the nonzeros of a row."""

    def __init__(
        self, context: Any, build: Any, kinds: Sequence[Any], values: Sequence[Any], uniform: bool = False
    ) -> None:
        self._build, self._uniform, self.begin, self.end = build, uniform, values[2], values[3]
        self._data, self._indices = (
            context.make_array(kind)(context, build, value) for kind, value in zip(kinds[:2], values[:2], strict=True)
        )

    def index(self, place: Any) -> Any:
        value = self._build.load(self._build.gep(self._indices.data, [place]))
        return value if value.type.width == _INT.width else self._build.zext(value, _INT)

    def value(self, place: Any) -> Any:
        """Return a value; 16 bits are float16, which numba has no arithmetic for, widened to float32."""
        place = ir.Constant(_INT, 0) if self._uniform else place
        value = self._build.load(self._build.gep(self._data.data, [place]))
        if value.type != ir.IntType(16):
            return value
        return self._build.fpext(self._build.bitcast(value, ir.HalfType()), ir.FloatType())

    def ahead(self, place: Any, distance: Any) -> Any:
        """Return the index some nonzeros further on, which may belong to a later row."""
        further = self._build.add(place, distance)
        inside = self._build.icmp_signed("<", further, self._build.extract_value(self._indices.shape, 0))
        return self.index(self._build.select(inside, further, place))

    def loop(self, carried: Sequence[Any], body: Callable[[Any, list[Any]], Sequence[Any]]) -> list[Any]:
        return write_loop(self._build, self.begin, self.end, carried, body)


def write_loop(
    build: Any, begin: Any, end: Any, carried: Sequence[Any], body: Callable[[Any, list[Any]], Sequence[Any]]
) -> list[Any]:
    """Write a loop over places; `body(place, values)` returns the values that the next round carries."""
    before = build.block
    head, inside, after = (build.append_basic_block(name) for name in ("head", "inside", "after"))
    build.branch(head)
    build.position_at_end(head)
    place = build.phi(_INT)
    values = [build.phi(value.type) for value in carried]
    build.cbranch(build.icmp_signed("<", place, end), inside, after)
    build.position_at_end(inside)
    following = [build.add(place, ir.Constant(_INT, 1)), *body(place, values)]
    for phi, first, later in zip([place, *values], [begin, *carried], following, strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(later, build.block)
    build.branch(head)
    build.position_at_end(after)
    return values


def rows_of(context: Any, build: Any, kind: Any, value: Any, column: Any) -> Callable[[Any], Any]:
    """Return what gives the address of a row of a dense block, from `column` on."""
    block = context.make_array(kind)(context, build, value)
    itemsize = ir.Constant(_INT, kind.dtype.bitwidth // 8)
    base = build.gep(build.bitcast(block.data, _BYTE.as_pointer()), [build.mul(column, itemsize)])
    stride = build.extract_value(block.strides, 0)
    return lambda row: build.gep(base, [build.mul(row, stride)])


def tile_of(context: Any, build: Any, kind: Any, rest: Any, literals: Sequence[Any]) -> Tile:
    lanes, vectors, masked = (literal.literal_value for literal in literals)
    mask = None
    if masked:
        numbers = ir.Constant(ir.VectorType(_INT, lanes), list(range(lanes)))
        mask = build.icmp_unsigned("<", numbers, splat(build, rest, lanes))
    return Tile(build, context.get_value_type(kind.dtype), kind.dtype.bitwidth // 8, lanes, vectors, mask)


def _begin_sums(build: Any, tile: Tile, place: Any, keep: Any) -> list[Any]:
    """Return what sums begin with: what is in memory if `keep`, else zeros."""
    with build.if_else(build.icmp_unsigned("!=", keep, ir.Constant(keep.type, 0))) as (kept, fresh):
        with kept:
            old, kept_end = tile.load(place), build.block
        with fresh:
            fresh_end = build.block
    start = [build.phi(tile.vector) for _ in old]
    for phi, value, zero in zip(start, old, tile.zeros(), strict=True):
        phi.add_incoming(value, kept_end)
        phi.add_incoming(zero, fresh_end)
    return start


@intrinsic(prefer_literal=True)
def _gather_tile(
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
        start = _begin_sums(build, tile, place, values[8])

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
    """Set tiles of `out[row]` and the row after it, as `_gather_tile` does.

    A narrow tile has few sums, and each waits for its last addition: two rows at once wait half as long.
    """

    def write(context: Any, build: Any, signature: Any, values: Any) -> Any:
        kinds = signature.args
        tile = tile_of(context, build, x, values[9], (lanes, vectors, masked))
        source, target = (rows_of(context, build, kinds[at], values[at], values[7]) for at in (4, 5))
        nonzeros = Nonzeros(context, build, kinds, values, bool(uniform.literal_value))
        (first, cut), last = values[2:4], values[11]
        places = [target(values[6]), target(build.add(values[6], ir.Constant(_INT, 1)))]
        starts = [_begin_sums(build, tile, place, values[8]) for place in places]
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
def gather_rows(form: Form) -> Callable[..., None]:
    """Return the loop `out[first:last, left:] = finish(matrix @ x)`; `out` is added to where `keep`.

    The loop takes indptr, indices, data, x, out, first, last, left, tiles, rest, keep, ahead, row_bias, column_bias,
    lower, upper: `tiles` full tiles, then the tail with `rest` entries in its last vector. A bias of size 0 is none.
    """
    lanes, vectors, tail, masked, prefetch, finish, fused, uniform = form
    full, last_vectors = lanes * vectors, max(tail, 1)

    @njit(nogil=True, cache=True)
    def loop(
        indptr: Any, indices: Any, data: Any, x: Any, out: Any, first: int, last: int, left: int, tiles: int, rest: int,
        keep: bool, ahead: int, row_bias: Any, column_bias: Any, lower: Any, upper: Any,
    ) -> None:  # fmt: skip
        right = left + tiles * full
        width = tiles * full + (lanes * (tail - 1) + rest if tail else 0)
        for top in range(first, last, _FINISHED):
            bottom = min(top + _FINISHED, last)
            paired = (bottom - top) // 2 if vectors <= _PAIRED else 0
            for pair in range(paired):
                row = top + 2 * pair
                _gather_pair(  # type: ignore[call-arg]
                    data, indices, indptr[row], indptr[row + 1], x, out, row, left, keep, rest, ahead, indptr[row + 2],
                    lanes, vectors, masked, prefetch, fused, uniform,
                )  # fmt: skip
            for row in range(top + 2 * paired, bottom):
                begin, end = indptr[row], indptr[row + 1]
                # LLVM divides 128-bit numbers for the length of a `while` loop, and that routine is not there.
                for tile in range(tiles):
                    at = left + tile * full
                    _gather_tile(  # type: ignore[call-arg]
                        data, indices, begin, end, x, out, row, at, keep, 0, ahead, lanes, vectors, False, prefetch,
                        fused, uniform,
                    )  # fmt: skip
                if tail:
                    _gather_tile(  # type: ignore[call-arg]
                        data, indices, begin, end, x, out, row, right, keep, rest, ahead, lanes, last_vectors, masked,
                        prefetch, fused, uniform,
                    )  # fmt: skip
            if finish:
                _finish_rows(out, top, bottom, left, left + width, row_bias, column_bias, lower, upper)

    return loop


@cache
def scatter_rows(form: Form) -> Callable[..., None]:
    """Return the loop `out[:, left:] += matrix[first:last].T @ x[first:last, left:]`.

    The loop takes indptr, indices, data, x, out, first, last, left, tiles, rest; see `gather_rows`.
    """
    lanes, vectors, tail, masked, *_ = form
    full, last_vectors = lanes * vectors, max(tail, 1)

    @njit(nogil=True, cache=True)
    def loop(
        indptr: Any, indices: Any, data: Any, x: Any, out: Any, first: int, last: int, left: int, tiles: int, rest: int
    ) -> None:
        right = left + tiles * full
        for row in range(first, last):
            begin, end = indptr[row], indptr[row + 1]
            for tile in range(tiles):
                at = left + tile * full
                _scatter_tile(data, indices, begin, end, x, out, row, at, 0, lanes, vectors, False)  # type: ignore[call-arg]
            if tail:
                _scatter_tile(data, indices, begin, end, x, out, row, right, rest, lanes, last_vectors, masked)  # type: ignore[call-arg]

    return loop


@cache
def structured_rows(form: Form) -> Callable[..., None]:
    """Return the loop `out[first:last] = weights @ x` over packed weights; see `Structured`.

    The loop takes values, offsets, columns, kept, group, bits, v, x, out, first, last, tiles, rest: `kept` entries of
    every `group` columns, whose offsets have so many `bits`; rows that share columns, or 0; values of 16 bits are
    float16.
    """
    lanes, vectors, tail, masked, *_ = form
    full, last_vectors = lanes * vectors, max(tail, 1)

    @njit(nogil=True, cache=True)
    def loop(
        values: Any, offsets: Any, columns: Any, kept: int, group: int, bits: int, v: int, x: Any, out: Any, first: int,
        last: int, tiles: int, rest: int,
    ) -> None:  # fmt: skip
        indices, ones = np.empty(values.shape[1], np.int32), np.uint32((1 << bits) - 1)
        for row in range(first, last):
            end = place = bit = 0
            for start in range(0, values.shape[1] // kept * group, group):
                for _ in range(kept):
                    word = np.uint32(offsets[row, bit >> 3])
                    if (bit & 7) + bits > 8:
                        word |= np.uint32(offsets[row, (bit >> 3) + 1]) << np.uint32(8)
                    column = start + np.int64((word >> np.uint32(bit & 7)) & ones)
                    if v:
                        column = columns[row // v, column]
                    indices[place] = column
                    place += 1
                    bit += bits
                    if column < x.shape[0]:
                        end = place
            data = values[row]
            for tile in range(tiles):
                _gather_tile(  # type: ignore[call-arg]
                    data, indices, 0, end, x, out, row, tile * full, False, 0, 0, lanes, vectors, False, False, False,
                    False,
                )  # fmt: skip
            if tail:
                _gather_tile(  # type: ignore[call-arg]
                    data, indices, 0, end, x, out, row, tiles * full, False, rest, 0, lanes, last_vectors, masked,
                    False, False, False,
                )  # fmt: skip

    return loop
