"""The compiled loop that reads X and writes its result by whole cache lines; imported where it runs.

What it is written with comes from another file, whose date numba does not look at: touch this one when that changes.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any, Final

from llvmlite import ir  # type: ignore[import-untyped]
from numba import cfunc, types
from numba.extending import intrinsic

from sparsecomm.kernels import frame as word
from sparsecomm.kernels.form import Form
from sparsecomm.kernels.frame_reader import array_at, block_at
from sparsecomm.kernels.loops import ENTRY, gather_tile
from sparsecomm.kernels.tile import Nonzeros, Tile, rows_of, tile_of, write_loop

_INT: Final = ir.IntType(64)
_FLAG: Final = ir.IntType(32)
_LINE_BYTES: Final = 64


class _Lines:
    """Writes rows of vectors that follow each other in memory as whole lines: a vector may lie across two of them.

    Rows of X may begin within a line too, all at the same lane. Then they are read by whole lines as well, and sums
    are in the lanes of these: the last vector of a row and the first of the next are two parts of one.

    Args:
        tile: of a row.
        x: address of X.
        out: address of the result.
        shifted: whether rows of X begin within a line.
        past: whether lines go past the caches.
    """

    def __init__(self, tile: Tile, x: Any, out: Any, shifted: bool, past: bool) -> None:
        self._tile, self._build, self._past = tile, tile.build, past
        self._word = ir.IntType(8 * tile.itemsize)
        inside = self._within(x) if shifted else ir.Constant(_INT, 0)
        apart = self._build.and_(self._build.sub(self._within(out), inside), ir.Constant(_INT, _LINE_BYTES - 1))
        self._inside, self._back = self._build.neg(inside), self._build.neg(self._build.add(apart, inside))
        self._joined = self._build.sub(self._numbers(tile.lanes), tile.spread(self._lanes(apart)))
        self._last = self._build.add(self._numbers(0), tile.spread(self._lanes(inside)))
        self.begun = self._build.icmp_unsigned(">=", self._numbers(0), tile.spread(self._lanes(inside)))
        self.sums = replace(tile, vectors=tile.vectors + 1, head=self.begun, mask=self._build.not_(self.begun))
        self._shifted = shifted
        if not shifted:
            self.sums = tile

    def source(self, row: Any) -> Any:
        """Return where the first of the vectors of a row of X begins."""
        return self._build.gep(row, [self._inside])

    def before(self, row: Any) -> list[Any]:
        """Return the vectors that are carried to the first row from the one before it, which is in memory."""
        part = self.source(row)
        return [self._tile.read(part, place) for place in ([-1, 0] if self._shifted else [-1])]

    def write(self, row: Any, carried: list[Any], sums: list[Any]) -> list[Any]:
        """Write all lines that end in a row; return what is carried to the next."""
        if self._shifted:
            sums = [self._build.select(self.begun, sums[0], carried[1]), *sums[1:]]
        own, base = sums[: self._tile.vectors], self._build.gep(row, [self._back])
        for place, (left, right) in enumerate(zip([carried[0], *own], own, strict=False)):
            store = self._build.store(self._join(left, self._joined, right), self._tile.at(base, place))
            store.align = _LINE_BYTES
            if self._past:
                store.set_metadata("nontemporal", self._build.module.add_metadata([ir.Constant(_FLAG, 1)]))
        return sums[self._tile.vectors - 1 :]

    def end(self, row: Any, carried: list[Any]) -> None:
        """Write what is left of the last row, and let nothing overtake it."""
        if self._past:
            nothing = ir.FunctionType(ir.VoidType(), [])
            self._build.call(self._build.module.declare_intrinsic("llvm.x86.sse.sfence", (), nothing), [])
        self._tile.store_last(self.source(row), carried[0])
        if self._shifted:
            self._tile.store_last(row, self._join(carried[0], self._last, carried[1]))

    def _within(self, address: Any) -> Any:
        return self._build.and_(self._build.ptrtoint(address, _INT), ir.Constant(_INT, _LINE_BYTES - 1))

    def _lanes(self, num_bytes: Any) -> Any:
        lanes = self._build.udiv(num_bytes, ir.Constant(_INT, self._tile.itemsize))
        return lanes if self._word == _INT else self._build.trunc(lanes, self._word)

    def _numbers(self, first: int) -> Any:
        lanes = self._tile.lanes
        return ir.Constant(ir.VectorType(self._word, lanes), list(range(first, first + lanes)))

    def _join(self, left: Any, places: Any, right: Any) -> Any:
        """Return the lanes that `places` numbers of both."""
        vector = self._tile.vector
        name = f"llvm.x86.avx512.vpermi2var.{'ps' if self._tile.itemsize == 4 else 'pd'}.512"
        call = self._build.module.declare_intrinsic(name, (), ir.FunctionType(vector, [vector, places.type, vector]))
        return self._build.call(call, [left, places, right])


@intrinsic(prefer_literal=True)
def _stream(
    typing: Any, data: Any, indices: Any, begin: Any, end: Any, x: Any, out: Any, indptr: Any, ahead: Any, lanes: Any,
    vectors: Any, prefetch: Any, fused: Any, uniform: Any, shifted: Any, past: Any,
) -> Any:  # fmt: skip
    """Set rows `begin` to `end` of `out`; the row before `begin` is there already."""

    def write(context: Any, build: Any, signature: Any, values: Any) -> Any:
        kinds, zero, one = signature.args, ir.Constant(_INT, 0), ir.Constant(_INT, 1)
        source, target = (rows_of(context, build, kinds[at], values[at], zero) for at in (4, 5))
        tile = tile_of(context, build, x, None, (lanes, vectors, types.literal(False)))  # type: ignore[no-untyped-call]
        lines = _Lines(tile, source(zero), target(zero), bool(shifted.literal_value), bool(past.literal_value))
        starts = context.make_array(kinds[6])(context, build, values[6]).data

        def start(row: Any) -> Any:
            value = build.load(build.gep(starts, [row]))
            return value if value.type.width == _INT.width else build.zext(value, _INT)

        def a_row(row: Any, carried: list[Any]) -> list[Any]:
            places = [*values[:2], start(row), start(build.add(row, one))]
            nonzeros = Nonzeros(context, build, kinds, places, bool(uniform.literal_value))

            def body(at: Any, sums: list[Any]) -> list[Any]:
                if prefetch.literal_value:
                    lines.sums.prefetch(lines.source(source(nonzeros.ahead(at, values[7]))))
                entries = lines.sums.load(lines.source(source(nonzeros.index(at))))
                return lines.sums.add_product(sums, nonzeros.value(at), entries, bool(fused.literal_value))

            return lines.write(target(row), carried, nonzeros.loop(lines.sums.zeros(), body))

        carried = write_loop(build, values[2], values[3], lines.before(target(values[2])), a_row)
        lines.end(target(build.sub(values[3], one)), carried)
        return context.get_dummy_value()

    words, literals = [types.int64] * 2, (lanes, vectors, prefetch, fused, uniform, shifted, past)
    return types.void(data, indices, *words, x, out, indptr, types.int64, *literals), write


@cache
def stream_rows(form: Form, entry: str, index: str, shifted: bool, past: bool) -> Any:
    """Return the loop of `gather_rows` for results whose rows follow each other and are whole vectors in one tile.

    Lines that go past the caches are not read before they are overwritten, and what is still needed stays in the
    caches. Rows of X that begin within a line, two vectors of them at least, are read by lines where `shifted`.
    Products and sums are those of `gather_rows`.
    """
    lanes, vectors, _, _, prefetch, _, fused, uniform = form

    @cfunc(ENTRY, cache=True)
    def loop(frame: int, line: int) -> None:
        words: Any = array_at(frame, word.SIZE, "q")  # type: ignore[call-arg]
        part: Any = array_at(line, word.LINE, "q")
        indptr = array_at(words[word.STARTS], 0, index)
        indices = array_at(words[word.INDICES], words[word.NONZEROS], index)
        data = array_at(words[word.VALUES], words[word.NONZEROS], entry)
        x = block_at(words[word.X], words[word.X_STRIDE], entry)
        out = block_at(words[word.OUT], words[word.OUT_STRIDE], entry)
        first, last, ahead = part[word.FIRST], part[word.LAST], words[word.AHEAD]
        if first < last:
            gather_tile(
                data, indices, indptr[first], indptr[first + 1], x, out, first, 0, False, 0, ahead, lanes, vectors,
                False, prefetch, fused, uniform,
            )  # fmt: skip
        if first + 1 < last:
            _stream(
                data, indices, first + 1, last, x, out, indptr, ahead, lanes, vectors, prefetch, fused, uniform,
                shifted, past,
            )  # fmt: skip

    return loop
