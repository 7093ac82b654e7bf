"""CUDA source of the local product: Tiled SpMM, rows shared by threads, and equal shares of rows and nonzeros."""

from __future__ import annotations

from typing import Final, NamedTuple


class _Words(NamedTuple):
    """What a value is stored as, what sums of it are kept in, and how one becomes the other."""

    value: str
    sum: str
    to_sum: str = "(Sum)value"
    to_value: str = "(Value)value"
    include: str = ""


DTYPES: Final = {
    "float64": _Words("double", "double"),
    "float32": _Words("float", "float"),
    "float16": _Words("__half", "float", "__half2float(value)", "__float2half(value)", "#include <cuda_fp16.h>"),
    "bfloat16": _Words(
        "__nv_bfloat16", "float", "__bfloat162float(value)", "__float2bfloat16(value)", "#include <cuda_bf16.h>"
    ),
}

_HEAD: Final = """
{words.include}
typedef {words.value} Value;
typedef {words.sum} Sum;
typedef {index} Index;
#define LANES {lanes}

__device__ __forceinline__ Sum to_sum(Value value) {{ return {words.to_sum}; }}
__device__ __forceinline__ Value to_value(Sum value) {{ return {words.to_value}; }}

// What is done to a sum on its way to memory. NaN passes the bounds.
__device__ __forceinline__ void finish(
    Value* out, Sum sum, int keep, const Sum* row_bias, const Sum* column_bias, long long row, int column, Sum lower,
    Sum upper
) {{
    if (keep) sum += to_sum(*out);
    if (row_bias) sum += row_bias[row];
    if (column_bias) sum += column_bias[column];
    *out = to_value(sum < lower ? lower : sum > upper ? upper : sum);
}}
"""

# A block of threads takes a block of rows and MINIBATCH columns of X. Stage by stage the rows of X that its rows use
# come to shared memory; a thread keeps the sums of its row in registers. With DEPTH 2, from sm_80 on, the rows of the
# next stage are on their way while those of this one are used.
# Source: Hidayetoglu et al., At-Scale Sparse Deep Neural Network Inference With Efficient GPU Implementation, 2020.
_TILED: Final = """
#define ROWS {block_rows}
#define STAGE {stage_columns}
#define MINIBATCH {minibatch}
#define DEPTH {depth}

__device__ __forceinline__ void bring(
    Value* staged, const int* map, int count, const Value* x, long long x_stride, int column, int width
) {{
    for (int entry = threadIdx.x; entry < count * MINIBATCH; entry += ROWS) {{
        int slot = entry / MINIBATCH, lane = entry % MINIBATCH;
        Value* place = staged + lane * STAGE + slot;
        const Value* source = x + map[slot] * x_stride + column + lane;
        if (column + lane >= width) {{ *place = to_value(0); continue; }}
#if DEPTH > 1
        if (sizeof(Value) >= 4) {{
            unsigned shared = (unsigned)__cvta_generic_to_shared(place);
            asm volatile("cp.async.ca.shared.global [%0], [%1], %2;"
                         :: "r"(shared), "l"(source), "n"(sizeof(Value) < 4 ? 4 : sizeof(Value)));
            continue;
        }}
#endif
        *place = *source;
    }}
#if DEPTH > 1
    asm volatile("cp.async.commit_group;");
#endif
}}

extern "C" __global__ __launch_bounds__(ROWS) void tiled_spmm(
    const long long* block_start, const long long* map_start, const int* map, const long long* warp_start,
    const unsigned short* index, const Value* value, const Value* x, long long x_stride, Value* out,
    long long out_stride, long long rows, int width, int keep, const Sum* row_bias, const Sum* column_bias, Sum lower,
    Sum upper
) {{
    extern __shared__ __align__(16) unsigned char memory[];
    Value* staged = (Value*)memory;
    const int column = blockIdx.y * MINIBATCH, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const long long first = block_start[blockIdx.x], last = block_start[blockIdx.x + 1];
    Sum sums[MINIBATCH];
    #pragma unroll
    for (int one = 0; one < MINIBATCH; ++one) sums[one] = 0;
#if DEPTH > 1
    if (first < last)
        bring(staged, map + map_start[first], map_start[first + 1] - map_start[first], x, x_stride, column, width);
#endif
    for (long long stage = first; stage < last; ++stage) {{
        Value* here = staged + ((stage - first) % DEPTH) * (STAGE * MINIBATCH);
#if DEPTH > 1
        if (stage + 1 < last) {{
            Value* next = staged + ((stage + 1 - first) % DEPTH) * (STAGE * MINIBATCH);
            bring(next, map + map_start[stage + 1], map_start[stage + 2] - map_start[stage + 1], x, x_stride, column,
                  width);
            asm volatile("cp.async.wait_group 1;");
        }} else {{
            asm volatile("cp.async.wait_group 0;");
        }}
#else
        bring(here, map + map_start[stage], map_start[stage + 1] - map_start[stage], x, x_stride, column, width);
#endif
        __syncthreads();
        const long long part = stage * (ROWS / 32) + warp;
        for (long long padded = warp_start[part]; padded < warp_start[part + 1]; ++padded) {{
            const int slot = index[padded * 32 + lane];
            const Sum factor = to_sum(value[padded * 32 + lane]);
            #pragma unroll
            for (int one = 0; one < MINIBATCH; ++one) sums[one] += factor * to_sum(here[one * STAGE + slot]);
        }}
        __syncthreads();
    }}
    const long long row = (long long)blockIdx.x * ROWS + threadIdx.x;
    if (row >= rows) return;
    #pragma unroll
    for (int one = 0; one < MINIBATCH; ++one)
        if (column + one < width)
            finish(out + row * out_stride + column + one, sums[one], keep, row_bias, column_bias, row, column + one,
                   lower, upper);
}}
"""

# LANES threads for each row, each with a column of X.
_ROWS: Final = """
extern "C" __global__ void row_spmm(
    const Index* indptr, const int* indices, const Value* data, const Value* x, long long x_stride, Value* out,
    long long out_stride, long long rows, int width, int keep, const Sum* row_bias, const Sum* column_bias, Sum lower,
    Sum upper
) {{
    const long long row = (long long)blockIdx.x * (blockDim.x / LANES) + threadIdx.x / LANES;
    const int column = blockIdx.y * LANES + threadIdx.x % LANES;
    if (row >= rows || column >= width) return;
    Sum sum = 0;
    for (Index place = indptr[row]; place < indptr[row + 1]; ++place)
        sum += to_sum(data[place]) * to_sum(x[indices[place] * x_stride + column]);
    finish(out + row * out_stride + column, sum, keep, row_bias, column_bias, row, column, lower, upper);
}}
"""

# Every LANES threads take STEPS steps of the path that merges rows and nonzeros; sums are added to what is there. Only
# rows that a share begins or ends in are added atomically.
# Source: Merrill and Garland, Merge-based parallel sparse matrix-vector multiplication, 2016.
_MERGE: Final = """
#define STEPS {steps}

extern "C" __global__ void merge_spmm(
    const Index* indptr, const int* indices, const Value* data, const Value* x, long long x_stride, Sum* out,
    long long out_stride, long long rows, int width
) {{
    const int column = blockIdx.y * LANES + threadIdx.x % LANES;
    const long long nonzeros = indptr[rows], path = rows + nonzeros;
    const long long share = (long long)blockIdx.x * (blockDim.x / LANES) + threadIdx.x / LANES;
    const long long begin = share * STEPS, end = begin + STEPS < path ? begin + STEPS : path;
    if (column >= width || begin >= path) return;
    long long low = begin > nonzeros ? begin - nonzeros : 0, high = begin < rows ? begin : rows;
    while (low < high) {{
        const long long middle = (low + high) / 2;
        if (indptr[middle + 1] <= begin - middle - 1) low = middle + 1; else high = middle;
    }}
    long long row = low, place = begin - low;
    bool whole = row < rows && place == indptr[row];
    Sum sum = 0;
    for (long long step = begin; step < end; ++step) {{
        if (row < rows && place == indptr[row + 1]) {{
            Sum* target = out + row * out_stride + column;
            if (whole) *target += sum; else atomicAdd(target, sum);
            sum = 0; whole = true; ++row;
        }} else {{
            sum += to_sum(data[place]) * to_sum(x[indices[place] * x_stride + column]);
            ++place;
        }}
    }}
    // Nothing was taken of the row if the sum is 0: another share may be writing it whole.
    if (row < rows && sum != 0) atomicAdd(out + row * out_stride + column, sum);
}}
"""


def tiled_source(
    dtype: str, *, block_rows: int = 256, stage_columns: int = 512, minibatch: int = 12, depth: int = 1
) -> str:
    """Return the source of Tiled SpMM; `depth` 2 brings one stage while another is used, from sm_80 on."""
    numbers = {"block_rows": block_rows, "stage_columns": stage_columns, "minibatch": minibatch, "depth": depth}
    return _head(dtype) + _TILED.format(**numbers)


def row_source(dtype: str, *, index: str = "int", lanes: int = 32) -> str:
    """Return the source of the product with `lanes` threads for each row; `index` is the type of indptr."""
    return _head(dtype, index, lanes) + _ROWS.format()


def merge_source(dtype: str, *, index: str = "int", lanes: int = 32, steps: int = 256) -> str:
    """Return the source of the product with equal shares of rows and nonzeros; `index` is the type of indptr."""
    return _head(dtype, index, lanes) + _MERGE.format(steps=steps)


def _head(dtype: str, index: str = "int", lanes: int = 32) -> str:
    return _HEAD.format(words=DTYPES[dtype], index=index, lanes=lanes)
