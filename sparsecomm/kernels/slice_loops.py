"""The compiled loops of matrices in slices, a row in each lane of a vector register; imported where they run.

What they are written with comes from another file, whose date numba does not look at: touch this one when that changes.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from llvmlite import ir  # type: ignore[import-untyped]
from numba import cfunc, njit, types
from numba.extending import intrinsic

from sparsecomm.kernels import frame as word
from sparsecomm.kernels.frame_reader import array_at
from sparsecomm.kernels.loops import ENTRY
from sparsecomm.kernels.tile import splat, write_loop

_BYTE: Final = ir.IntType(8)
_INT: Final = ir.IntType(64)
_FLAG: Final = ir.IntType(32)
_REGISTER_BYTES: Final = 64


@intrinsic(prefer_literal=True)
def _slice(
    typing: Any, data: Any, indices: Any, lengths: Any, rows: Any, begin: Any, first: Any, full: Any, steps: Any,
    column: Any, x: Any, out: Any, keep: Any, uniform: Any,
) -> Any:  # fmt: skip
    """Multiply a slice of a `Sliced` matrix, one row in each lane; `full` of its `steps` have no padding.

    Columns are counted from `column`.
    """
    narrow = ir.IntType(indices.dtype.bitwidth)

    def write(context: Any, build: Any, signature: Any, values: Any) -> Any:
        arrays = [
            context.make_array(kind)(context, build, value).data
            for kind, value in zip(signature.args, values, strict=True)
            if isinstance(kind, types.Array)
        ]
        lanes = _Lanes(build, context.get_value_type(data.dtype), data.dtype.bitwidth // 8)
        at_data, at_indices, at_lengths, at_rows, at_x, at_out = arrays
        at_x = build.gep(at_x, [values[8]])
        length, row = (lanes.load(lanes.integer, at, values[5]) for at in (at_lengths, at_rows))
        one = splat(build, build.load(at_data), lanes.count)
        real = build.icmp_signed(">=", row, splat(build, ir.Constant(_FLAG, 0), lanes.count))
        kept = lanes.gather(at_out, row, build.and_(real, splat(build, values[11], lanes.count)))

        def product(step: Any, mask: Any) -> Any:
            place = build.add(values[4], build.mul(step, ir.Constant(_INT, lanes.count)))
            columns = build.zext(lanes.load(ir.VectorType(narrow, lanes.count), at_indices, place), lanes.integer)
            factors = one if uniform.literal_value else lanes.load(lanes.vector, at_data, place)
            return build.fmul(factors, lanes.gather(at_x, columns, mask))

        def padded(step: Any, sums: list[Any]) -> list[Any]:
            mask = build.icmp_signed(">", length, splat(build, build.trunc(step, _FLAG), lanes.count))
            return [build.select(mask, build.fadd(sums[0], product(step, mask)), sums[0])]

        everyone = ir.Constant(ir.VectorType(ir.IntType(1), lanes.count), [1] * lanes.count)
        zero = ir.Constant(_INT, 0)
        sums = write_loop(build, zero, values[6], [kept], lambda at, old: [build.fadd(old[0], product(at, everyone))])
        lanes.scatter(write_loop(build, values[6], values[7], sums, padded)[0], at_out, row, real)
        return context.get_dummy_value()

    words = [types.int64] * 5
    return types.void(data, indices, lengths, rows, *words, x, out, types.boolean, uniform), write


class _Lanes:
    """Writes what AVX-512 does to a vector of rows: loads, gathers and scatters."""

    def __init__(self, build: Any, entry: Any, itemsize: int) -> None:
        self._build, self.count, self._itemsize = build, _REGISTER_BYTES // itemsize, itemsize
        self.vector, self.integer = ir.VectorType(entry, self.count), ir.VectorType(_FLAG, self.count)
        self._mask = ir.VectorType(ir.IntType(1), self.count)
        self._word = "dps" if itemsize == 4 else "dpd"

    def load(self, kind: Any, base: Any, place: Any) -> Any:
        value = self._build.load(self._build.bitcast(self._build.gep(base, [place]), kind.as_pointer()))
        value.align = 2
        return value

    def gather(self, base: Any, index: Any, mask: Any) -> Any:
        kinds = [self.vector, _BYTE.as_pointer(), self.integer, self._mask, _FLAG]
        call = self._declare("gather", self.vector, kinds)
        zeros, scale = ir.Constant(self.vector, None), ir.Constant(_FLAG, self._itemsize)
        return self._build.call(call, [zeros, self._build.bitcast(base, _BYTE.as_pointer()), index, mask, scale])

    def scatter(self, values: Any, base: Any, index: Any, mask: Any) -> None:
        kinds = [_BYTE.as_pointer(), self._mask, self.integer, self.vector, _FLAG]
        call, scale = self._declare("scatter", ir.VoidType(), kinds), ir.Constant(_FLAG, self._itemsize)
        self._build.call(call, [self._build.bitcast(base, _BYTE.as_pointer()), mask, index, values, scale])

    def _declare(self, act: str, result: Any, kinds: list[Any]) -> Any:
        name = f"llvm.x86.avx512.mask.{act}.{self._word}.512"
        return self._build.module.declare_intrinsic(name, (), ir.FunctionType(result, kinds))


@cache
def slice_rows(uniform: bool, entry: str, index: str, lanes: int) -> Any:
    """Return the loop that multiplies slices `first` to `last` of a `Sliced` matrix with a vector, both flat.

    It takes the addresses of a frame and of a part's line. The result is added to `out` where `keep`. All values are
    the first of them if `uniform`.
    """

    @cfunc(ENTRY, cache=True)
    def loop(frame: int, line: int) -> None:
        words: Any = array_at(frame, word.SIZE, "q")  # type: ignore[call-arg]
        part: Any = array_at(line, word.LINE, "q")
        starts, full = array_at(words[word.STARTS], 0, "q"), array_at(words[word.FULL], 0, "q")
        data, indices = array_at(words[word.VALUES], 0, entry), array_at(words[word.INDICES], 0, index)
        lengths, rows = array_at(words[word.LENGTHS], 0, "i"), array_at(words[word.ROWS], 0, "i")
        columns = array_at(words[word.COLUMNS], 0, "q")
        x, out = array_at(words[word.X], 0, entry), array_at(words[word.OUT], 0, entry)
        keep = words[word.KEEP] != 0
        for number in range(part[word.FIRST], part[word.LAST]):
            steps = (starts[number + 1] - starts[number]) // lanes
            _slice(
                data, indices, lengths, rows, starts[number], number * lanes, full[number], steps, columns[number], x,
                out, keep, uniform,
            )  # fmt: skip

    return loop


@njit(nogil=True, cache=True)
def fill_slices(indptr: Any, place: Any, lanes: int, source: Any, target: Any) -> None:
    """Write the entries of every row, in CSR order, to `place[row]` and every `lanes` after it."""
    for row in range(place.size):
        at = place[row]
        for nonzero in range(indptr[row], indptr[row + 1]):
            target[at] = source[nonzero]
            at += lanes
