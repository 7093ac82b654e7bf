"""CUDA source that moves rows: out of a block, into one, added to one, and taken from many places at once."""

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

# Rows lie in many places: memory of other ranks, read in place, or the host's. One launch takes them all.
_TAKE: Final = """
typedef {unit} Unit;

extern "C" __global__ void take_rows(
    Unit* target, const long long* target_index, const unsigned long long* sources, const int* source,
    const long long* source_index, long long rows, int units
) {{
    const long long total = rows * units, step = (long long)gridDim.x * blockDim.x;
    for (long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x; at < total; at += step) {{
        const long long row = at / units, unit = at % units;
        const Unit* from = (const Unit*)sources[source[row]];
        target[target_index[row] * units + unit] = from[source_index[row] * units + unit];
    }}
}}
"""

# A thread adds up all that one number of a row gets, in the order of its segment, so that sums are repeatable.
_SUM: Final = """
{words.include}
typedef {words.value} Value;
typedef {words.sum} Sum;
__device__ __forceinline__ Sum to_sum(Value value) {{ return {words.to_sum}; }}
__device__ __forceinline__ Value to_value(Sum value) {{ return {words.to_value}; }}

extern "C" __global__ void sum_rows(
    Value* target, const long long* target_index, const int* keep, const long long* indptr,
    const unsigned long long* sources, const int* source, const long long* source_index, long long segments, int width
) {{
    const long long total = segments * width, step = (long long)gridDim.x * blockDim.x;
    for (long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x; at < total; at += step) {{
        const long long segment = at / width, column = at % width;
        Value* place = target + target_index[segment] * width + column;
        Sum sum = to_sum(*place);
        for (long long item = indptr[segment]; item < indptr[segment + 1]; ++item) {{
            const Value* from = (const Value*)sources[source[item]];
            const Sum found = to_sum(from[source_index[item] * width + column]);
            sum = item > indptr[segment] || keep[segment] ? sum + found : found;
        }}
        *place = to_value(sum);
    }}
}}
"""


def copy_source(unit: int) -> str:
    """Return the source of `copy_rows` in units of 1, 2, 4, 8 or 16 bytes."""
    return _COPY.format(unit=_UNITS[unit])


def add_source(dtype: str) -> str:
    """Return the source of `add_rows`."""
    return _ADD.format(words=DTYPES[dtype])


def take_source(unit: int) -> str:
    """Return the source of `take_rows` in units of 1, 2, 4, 8 or 16 bytes."""
    return _TAKE.format(unit=_UNITS[unit])


def sum_source(dtype: str) -> str:
    """Return the source of `sum_rows`."""
    return _SUM.format(words=DTYPES[dtype])
