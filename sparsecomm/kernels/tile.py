"""What compiled loops are written of: tiles of a dense block in vector registers, loops over nonzeros, in LLVM's words.

One tile is a row of the matrix times some columns of X, its sums in vector registers. LLVM does not do this to a loop
over a width that it knows, so the tile is written in its own words; any width is a few tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from llvmlite import ir  # type: ignore[import-untyped]

_BYTE: Final = ir.IntType(8)
_INT: Final = ir.IntType(64)
_FLAG: Final = ir.IntType(32)
_LINE_BYTES: Final = 64


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


def begin_sums(build: Any, tile: Tile, place: Any, keep: Any) -> list[Any]:
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
