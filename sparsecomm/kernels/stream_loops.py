"""The compiled loop that writes its result past the caches, whole lines at a time; imported where it runs.

What it is written with comes from another file, whose date numba does not look at: touch this one when that changes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final

from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic

from sparsecomm.kernels.form import Form
from sparsecomm.kernels.loops import Nonzeros, Tile, gather_rows, rows_of, tile_of, write_loop

_INT: Final = ir.IntType(64)
_FLAG: Final = ir.IntType(32)
_LINE_BYTES: Final = 64


class _Lines:
    """Writes rows of vectors, one after the other in memory, as whole lines: a vector may lie across two of them."""

    def __init__(self, tile: Tile, first: Any) -> None:
        self._tile, self._build = tile, tile.build
        shift = self._build.and_(self._build.ptrtoint(first, _INT), ir.Constant(_INT, _LINE_BYTES - 1))
        self._back = self._build.neg(shift)
        self._word = ir.IntType(8 * tile.itemsize)
        lanes = self._build.trunc(self._build.udiv(shift, ir.Constant(_INT, tile.itemsize)), self._word)
        start = self._build.sub(ir.Constant(self._word, tile.lanes), lanes)
        numbers = ir.Constant(ir.VectorType(self._word, tile.lanes), list(range(tile.lanes)))
        self._places = self._build.add(numbers, tile.spread(start))

    def write(self, base: Any, before: Any, values: list[Any]) -> None:
        """Write the line that the vector before `values` ends in, and all others but the last of `values`."""
        base = self._build.gep(base, [self._back])
        for place, (left, right) in enumerate(zip([before, *values], values, strict=False)):
            store = self._build.store(self._join(left, right), self._tile.at(base, place))
            store.align = _LINE_BYTES
            store.set_metadata("nontemporal", self._build.module.add_metadata([ir.Constant(_FLAG, 1)]))

    def end(self) -> None:
        """Let nothing overtake what was written."""
        self._build.call(self._build.module.declare_intrinsic("llvm.x86.sse.sfence", (), _nothing()), [])

    def _join(self, left: Any, right: Any) -> Any:
        """Return the end of `left` and the beginning of `right`."""
        vector, places = self._tile.vector, self._places.type
        name = f"llvm.x86.avx512.vpermi2var.{'ps' if self._tile.itemsize == 4 else 'pd'}.512"
        call = self._build.module.declare_intrinsic(name, (), ir.FunctionType(vector, [vector, places, vector]))
        return self._build.call(call, [left, self._places, right])


def _nothing() -> Any:
    return ir.FunctionType(ir.VoidType(), [])


@intrinsic(prefer_literal=True)
def _stream(
    typing: Any, data: Any, indices: Any, begin: Any, end: Any, x: Any, out: Any, indptr: Any, ahead: Any, lanes: Any,
    vectors: Any, prefetch: Any, fused: Any, uniform: Any,
) -> Any:  # fmt: skip
    """Set rows `begin` to `end` of `out`; the row before `begin` is there already."""

    def write(context: Any, build: Any, signature: Any, values: Any) -> Any:
        kinds = signature.args
        tile = tile_of(context, build, x, None, (lanes, vectors, types.literal(False)))
        source, target = (_row_of(context, build, kinds[at], values[at]) for at in (4, 5))
        starts = context.make_array(kinds[6])(context, build, values[6]).data
        lines, one = _Lines(tile, target(values[2])), ir.Constant(_INT, 1)

        def start(row: Any) -> Any:
            value = build.load(build.gep(starts, [row]))
            return value if value.type.width == _INT.width else build.zext(value, _INT)

        def a_row(row: Any, carried: list[Any]) -> list[Any]:
            places = [*values[:2], start(row), start(build.add(row, one))]
            nonzeros = Nonzeros(context, build, kinds, places, bool(uniform.literal_value))

            def body(at: Any, sums: list[Any]) -> list[Any]:
                if prefetch.literal_value:
                    tile.prefetch(source(nonzeros.ahead(at, values[7])))
                entries = tile.load(source(nonzeros.index(at)))
                return tile.add_product(sums, nonzeros.value(at), entries, bool(fused.literal_value))

            sums = nonzeros.loop(tile.zeros(), body)
            lines.write(target(row), carried[0], sums)
            return [sums[-1]]

        before = tile.load(target(build.sub(values[2], one)))[-1]
        last = write_loop(build, values[2], values[3], [before], a_row)[0]
        lines.end()
        tile.store_last(target(build.sub(values[3], one)), last)
        return context.get_dummy_value()

    words, literals = [types.int64] * 2, (lanes, vectors, prefetch, fused, uniform)
    return types.void(data, indices, *words, x, out, indptr, types.int64, *literals), write


def _row_of(context: Any, build: Any, kind: Any, value: Any) -> Callable[[Any], Any]:
    return rows_of(context, build, kind, value, ir.Constant(_INT, 0))


@cache
def stream_rows(form: Form) -> Callable[..., None]:
    """Return the loop of `gather_rows` for results whose rows follow each other and are whole vectors in one tile.

    Its lines go past the caches: nothing is read before it is overwritten, and nothing that is still needed leaves
    them. Products and sums are those of `gather_rows`.
    """
    lanes, vectors, _, _, prefetch, _, fused, uniform = form
    head = gather_rows(form)

    @njit(nogil=True, cache=True)
    def loop(
        indptr: Any, indices: Any, data: Any, x: Any, out: Any, first: int, last: int, left: int, tiles: int, rest: int,
        keep: bool, ahead: int, row_bias: Any, column_bias: Any, lower: Any, upper: Any,
    ) -> None:  # fmt: skip
        if first < last:
            head(
                indptr, indices, data, x, out, first, first + 1, left, tiles, rest, keep, ahead, row_bias, column_bias,
                lower, upper,
            )  # fmt: skip
        if first + 1 < last:
            _stream(data, indices, first + 1, last, x, out, indptr, ahead, lanes, vectors, prefetch, fused, uniform)  # type: ignore[call-arg]

    return loop
