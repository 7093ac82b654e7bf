"""Arrays from the addresses in a frame, in compiled loops; imported where they run."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array
from numba.np.numpy_support import from_dtype

_INT: Final = ir.IntType(64)
_MANY: Final = 1 << 31  # rows of a block: nobody asks


@intrinsic(prefer_literal=True)
def array_at(typing: Any, address: Any, size: Any, char: Any) -> Any:
    """Return the array of so many entries, of the type numpy calls `char`, that begins at an address."""
    dtype = from_dtype(np.dtype(char.literal_value))
    kind = types.Array(dtype, 1, "C")

    def write(context: Any, build: Any, signature: Any, values: Any) -> Any:
        return _array(context, build, kind, values[0], [values[1]], [ir.Constant(_INT, dtype.bitwidth // 8)])

    return kind(types.int64, types.int64, char), write


@intrinsic(prefer_literal=True)
def block_at(typing: Any, address: Any, stride: Any, char: Any) -> Any:
    """Return the rows, `stride` bytes apart, that begin at an address."""
    dtype = from_dtype(np.dtype(char.literal_value))
    kind = types.Array(dtype, 2, "C")

    def write(context: Any, build: Any, signature: Any, values: Any) -> Any:
        itemsize = ir.Constant(_INT, dtype.bitwidth // 8)
        shape = [ir.Constant(_INT, _MANY), build.sdiv(values[1], itemsize)]
        return _array(context, build, kind, values[0], shape, [values[1], itemsize])

    return kind(types.int64, types.int64, char), write


@intrinsic
def real_of(typing: Any, word: Any) -> Any:
    """Return the float64 whose bits a word has."""

    def write(context: Any, build: Any, signature: Any, values: Any) -> Any:
        return build.bitcast(values[0], ir.DoubleType())

    return types.float64(types.int64), write


def _array(context: Any, build: Any, kind: Any, address: Any, shape: list[Any], strides: list[Any]) -> Any:
    array = make_array(kind)(context, build)  # type: ignore[no-untyped-call]
    data = build.inttoptr(address, array.data.type)
    populate_array(array, data=data, shape=shape, strides=strides, itemsize=strides[-1], meminfo=None)  # type: ignore[no-untyped-call]
    return array._getvalue()
