"""The local product on a GPU: formats are uploaded once, kernels compiled when first used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Protocol

import numpy as np
from scipy.sparse import csr_array

from sparsecomm.arrays import DeviceArray, as_device, as_host, device_module, from_cupyx, on_device
from sparsecomm.errors import InputError
from sparsecomm.kernels.cuda_source import merge_source, row_source, tiled_source
from sparsecomm.kernels.epilogue import Epilogue
from sparsecomm.kernels.staged import Staged

_THREADS: Final = 256
_STEPS: Final = 256
_SHARED_BYTES: Final = 48 << 10  # what every GPU gives a block without being asked
_DTYPES: Final = ("float16", "float32", "float64")
# Tiled SpMM is for rows that share what they read and are of like lengths: each staged row of X is used so often, and
# lanes idle so little.
_LEAST_REUSE: Final = 3.0
_MOST_PADDING: Final = 1.5
# One long row keeps its threads busy while all others have finished.
_SKEWED: Final = 64.0


class DeviceKernel(Protocol):
    """A matrix on a GPU, ready to be multiplied in one way."""

    def fits(self, out: DeviceArray, epilogue: Epilogue | None) -> bool:
        """Say whether it can write this result."""

    def multiply(self, x: DeviceArray, out: DeviceArray, keep: bool, epilogue: Epilogue | None) -> None:
        """Compute `out = matrix @ x`, added to what is there if `keep`; then the epilogue. On the current stream."""


@dataclass(frozen=True, slots=True)
class _Finish:
    """The last arguments of a kernel that writes what an epilogue makes of its sums."""

    biases: tuple[DeviceArray | np.uint64, DeviceArray | np.uint64]
    bounds: tuple[Any, Any]

    @staticmethod
    def of(epilogue: Epilogue | None, out: DeviceArray) -> _Finish:
        epilogue, kind = epilogue or Epilogue(), sums_dtype(out.dtype)
        found = [as_device(bias) if bias.size else np.uint64(0) for bias in epilogue.biases(out.shape, kind)]
        return _Finish((found[0], found[1]), (kind.type(epilogue.lower), kind.type(epilogue.upper)))


class TiledOnDevice:
    """Tiled SpMM: blocks of 256 rows, their columns in stages of 512 through shared memory."""

    def __init__(self, matrix: csr_array[Any], staged: Staged | None = None) -> None:
        staged = Staged.of(from_cupyx(matrix)) if staged is None else staged
        self._rows, self._staged = matrix.shape[0], staged
        parts = staged.block_start, staged.map_start, staged.map, staged.warp_start, staged.index, staged.value
        self._parts = [as_device(part) for part in parts]

    def fits(self, out: DeviceArray, epilogue: Epilogue | None) -> bool:
        return bool(out.dtype == self._staged.value.dtype)

    def multiply(self, x: DeviceArray, out: DeviceArray, keep: bool, epilogue: Epilogue | None) -> None:
        depth, itemsize = stage_depth(), out.dtype.itemsize
        most = _SHARED_BYTES // (self._staged.stage_columns * itemsize * depth)
        minibatch = min(most, 16, out.shape[1])
        source = tiled_source(
            str(out.dtype), block_rows=self._staged.block_rows, stage_columns=self._staged.stage_columns,
            minibatch=minibatch, depth=depth,
        )  # fmt: skip
        finish = _Finish.of(epilogue, out)
        compiled(source, "tiled_spmm")(
            (self._staged.num_blocks, -(-out.shape[1] // minibatch)),
            (self._staged.block_rows,),
            (*self._parts, x, _stride(x), out, _stride(out), np.int64(self._rows), np.int32(out.shape[1]),
             np.int32(keep), *finish.biases, *finish.bounds),
            shared_mem=self._staged.stage_columns * minibatch * itemsize * depth,
        )  # fmt: skip


class _Csr:
    """The arrays of a CSR matrix on the GPU."""

    def __init__(self, matrix: csr_array[Any]) -> None:
        self.shape, self.nnz, self.dtype = matrix.shape, matrix.nnz, matrix.dtype
        wide = matrix.nnz >= 2**31
        self.index = "long long" if wide else "int"
        self.indptr = as_device(matrix.indptr.astype(np.int64 if wide else np.int32, copy=False))
        self.indices, self.data = as_device(matrix.indices.astype(np.int32, copy=False)), as_device(matrix.data)

    def arguments(self, x: DeviceArray, out: DeviceArray) -> tuple[Any, ...]:
        sizes = np.int64(self.shape[0]), np.int32(out.shape[1])
        return self.indptr, self.indices, self.data, x, _stride(x), out, _stride(out), *sizes


class RowsOnDevice:
    """As many threads for each row as it has columns of X, 32 at most: rows of like lengths."""

    def __init__(self, matrix: csr_array[Any]) -> None:
        self._csr = _Csr(matrix)

    def fits(self, out: DeviceArray, epilogue: Epilogue | None) -> bool:
        return bool(out.dtype == self._csr.dtype)

    def multiply(self, x: DeviceArray, out: DeviceArray, keep: bool, epilogue: Epilogue | None) -> None:
        lanes, finish = _lanes(out.shape[1]), _Finish.of(epilogue, out)
        source = row_source(str(out.dtype), index=self._csr.index, lanes=lanes)
        compiled(source, "row_spmm")(
            (-(-self._csr.shape[0] * lanes // _THREADS), -(-out.shape[1] // lanes)),
            (_THREADS,),
            (*self._csr.arguments(x, out), np.int32(keep), *finish.biases, *finish.bounds),
        )


class MergeOnDevice:
    """Equal shares of rows and nonzeros, added atomically: rows of very different lengths, order of sums not fixed."""

    def __init__(self, matrix: csr_array[Any]) -> None:
        self._csr = _Csr(matrix)

    def fits(self, out: DeviceArray, epilogue: Epilogue | None) -> bool:
        return epilogue is None and out.dtype == self._csr.dtype == sums_dtype(out.dtype)

    def multiply(self, x: DeviceArray, out: DeviceArray, keep: bool, epilogue: Epilogue | None) -> None:
        if not keep:
            out.fill(0)
        lanes = _lanes(out.shape[1])
        shares = -(-(self._csr.shape[0] + self._csr.nnz) // _STEPS)
        source = merge_source(str(out.dtype), index=self._csr.index, lanes=lanes, steps=_STEPS)
        compiled(source, "merge_spmm")(
            (-(-shares * lanes // _THREADS), -(-out.shape[1] // lanes)), (_THREADS,), self._csr.arguments(x, out)
        )


KINDS: Final[dict[str, Callable[[csr_array[Any]], DeviceKernel]]] = {
    "tiled": TiledOnDevice,
    "rows": RowsOnDevice,
    "merge": MergeOnDevice,
}


class DeviceMatrix:
    """A sparse matrix on the current GPU.

    Args:
        matrix: (m, n), float16, float32 or float64; sums of float16 are made in float32. One of CuPy is used where it
            lies, without a copy; `tiled` alone is made on the host, and `auto` does not choose it for such a matrix.
        kind: `tiled`, `rows`, `merge`, or `auto` for what suits its rows. `merge` adds in an order that is not fixed.

    Raises:
        InputError: the dtype or the kind is none of these.
    """

    def __init__(self, matrix: csr_array[Any], kind: str = "auto") -> None:
        if str(matrix.dtype) not in _DTYPES:
            raise InputError(
                f"products on a GPU are of {', '.join(_DTYPES)}, not of {matrix.dtype}; convert the matrix"
            )
        if kind != "auto" and kind not in KINDS:
            raise InputError(f"no kind {kind!r} of product on a GPU; there are auto, {', '.join(KINDS)}")
        self.shape, self.nnz, self.dtype, self._matrix = matrix.shape, matrix.nnz, matrix.dtype, matrix
        self.kind, first = choose(matrix) if kind == "auto" else (kind, KINDS[kind](matrix))
        self._made: dict[str, DeviceKernel] = {self.kind: first}

    def multiply(
        self, x: DeviceArray, out: DeviceArray, *, keep: bool = False, epilogue: Epilogue | None = None
    ) -> None:
        """Compute `out = matrix @ x`, added to what is there if `keep`; then the epilogue. On the current stream.

        Args:
            x: (n, k) of the matrix's dtype, rows contiguous.
            out: (m, k), likewise; may not overlap `x`.

        Raises:
            InputError: shapes or dtypes do not fit.
        """
        if out.shape != (self.shape[0], x.shape[1]) or x.shape[0] != self.shape[1]:
            raise InputError(f"X {x.shape} and out {out.shape} do not fit a matrix {self.shape}")
        if not (x.dtype == out.dtype == self.dtype):
            raise InputError(f"X is {x.dtype} and out {out.dtype}, but the matrix is {self.dtype}; convert one of them")
        if out.size == 0 or (self.nnz == 0 and keep and epilogue is None):
            return
        kernel = self._kernel(self.kind)
        (kernel if kernel.fits(out, epilogue) else self._kernel("rows")).multiply(x, out, keep, epilogue)

    def _kernel(self, kind: str) -> DeviceKernel:
        if kind not in self._made:
            self._made[kind] = KINDS[kind](self._matrix)
        return self._made[kind]


def choose(matrix: csr_array[Any]) -> tuple[str, DeviceKernel]:
    """Return the kind of product that suits the rows of a matrix, by rules that no time decides, and make it."""
    lengths = np.diff(as_host(matrix.indptr))
    skewed = lengths.max(initial=0) > _SKEWED * max(float(lengths.mean()) if lengths.size else 0.0, 1.0)
    if skewed and sums_dtype(matrix.dtype) == matrix.dtype:
        return "merge", MergeOnDevice(matrix)
    if not skewed and matrix.nnz and not on_device(matrix.data):
        staged = Staged.of(matrix)
        if matrix.nnz >= _LEAST_REUSE * staged.map.size and staged.padding <= _MOST_PADDING:
            return "tiled", TiledOnDevice(matrix, staged)
    return "rows", RowsOnDevice(matrix)


def sums_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return what sums of values are kept in: float32 at least."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def stage_depth() -> int:
    """Return how many stages are in shared memory: two where copies to it are asynchronous, from sm_80 on."""
    return 2 if int(device_module().cuda.Device().compute_capability) >= 80 else 1


@cache
def compiled(source: str, name: str) -> Any:
    """Return a kernel, compiled by NVRTC for the current GPU when it is first launched."""
    return device_module().RawKernel(source, name, options=("--std=c++17",))


def _lanes(width: int) -> int:
    return min(32, 1 << max(width - 1, 0).bit_length())


def _stride(block: DeviceArray) -> np.int64:
    """Return numbers from row to row; the numbers of a row must lie side by side.

    Raises:
        InputError: they do not.
    """
    if block.size and block.shape[1] > 1 and block.strides[1] != block.itemsize:
        raise InputError("rows of a block on a GPU must be contiguous; give cupy.ascontiguousarray(X)")
    return np.int64(block.strides[0] // block.itemsize)
