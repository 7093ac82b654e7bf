"""CUDA source that moves rows: out of a block, into one, and added to one."""

from __future__ import annotations

from typing import Final

from sparsecomm.kernels.cuda_source import DTYPES

_UNITS: Final = {1: "unsigned char", 2: "unsigned short", 4: "unsigned int", 8: "unsigned long long", 16: "uint4"}

# A thread moves one unit, as wide as the rows of both sides allow; neighbours move neighbours. Either side may be
# pinned memory of the host. Without an index rows are taken in order.
_COPY: Final = """
typedef {unit} Unit;

extern "C" __global__ void copy_rows(
    Unit* target, long long target_stride, const long long* target_index, const Unit* source, long long source_stride,
    const long long* source_index, long long rows, int units
) {{
    const long long total = rows * units, step = (long long)gridDim.x * blockDim.x;
    for (long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x; at < total; at += step) {{
        const long long row = at / units, unit = at % units;
        const long long from = source_index ? source_index[row] : row, into = target_index ? target_index[row] : row;
        target[into * target_stride + unit] = source[from * source_stride + unit];
    }}
}}
"""

# No index names a row twice, so nothing is atomic.
_ADD: Final = """
{words.include}
typedef {words.value} Value;
typedef {words.sum} Sum;
__device__ __forceinline__ Sum to_sum(Value value) {{ return {words.to_sum}; }}
__device__ __forceinline__ Value to_value(Sum value) {{ return {words.to_value}; }}

extern "C" __global__ void add_rows(
    Value* target, long long target_stride, const long long* target_index, const Value* source, long long rows,
    int width
) {{
    const long long total = rows * width, step = (long long)gridDim.x * blockDim.x;
    for (long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x; at < total; at += step) {{
        Value* place = target + target_index[at / width] * target_stride + at % width;
        *place = to_value(to_sum(*place) + to_sum(source[at]));
    }}
}}
"""


def copy_source(unit: int) -> str:
    """Return the source of `copy_rows` in units of 1, 2, 4, 8 or 16 bytes."""
    return _COPY.format(unit=_UNITS[unit])


def add_source(dtype: str) -> str:
    """Return the source of `add_rows`."""
    return _ADD.format(words=DTYPES[dtype])
