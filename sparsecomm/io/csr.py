"""The one form in which matrices leave this package: canonical CSR with finite floating values."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array, csr_array

from sparsecomm.errors import InputError

Matrix: TypeAlias = csr_array[Any]
Values: TypeAlias = npt.NDArray[Any]
Indices: TypeAlias = npt.NDArray[np.integer[Any]]

_KEPT = tuple(np.dtype(name) for name in ("float32", "float64", "complex64", "complex128"))


def from_entries(rows: Indices, cols: Indices, values: Values, shape: tuple[int, int]) -> Matrix:
    """Return the CSR matrix of entries that are inside `shape`; duplicates are summed, zeros stay."""
    matrix: Matrix = coo_array((floating(values), (rows, cols)), shape=shape).tocsr()
    return matrix


def floating(values: Values) -> Values:
    """Return `values` as they are if a kernel can multiply them, else as float64 or complex128.

    Integers go through here before duplicates are summed, so that no sum wraps.
    """
    native = values.dtype.newbyteorder("=")
    if native in _KEPT:
        return values.astype(native, copy=False)
    if native.kind not in "biufc":
        raise InputError(f"has values of type {values.dtype}; expected numbers: convert them to float64")
    return values.astype(np.complex128 if native.kind == "c" else np.float64)


def canonical(matrix: Matrix, dtype: npt.DTypeLike | None = None) -> Matrix:
    """Return `matrix` with sorted indices and no duplicates, in `dtype` if one is given.

    Raises:
        InputError: a value is NaN or infinite, does not fit `dtype`, or is complex and `dtype` is not.
    """
    matrix.sum_duplicates()
    _check_finite(matrix, "")
    _narrow_indices(matrix)
    if dtype is None or matrix.dtype == np.dtype(dtype):
        return matrix
    return _cast(matrix, np.dtype(dtype))


def _narrow_indices(matrix: Matrix) -> None:
    """Use int32 indices where they reach, whatever the entries came with: half the memory for every product."""
    index_dtype = np.int32 if max(matrix.nnz, *matrix.shape) < 2**31 else np.int64
    matrix.indices = matrix.indices.astype(index_dtype, copy=False)
    matrix.indptr = matrix.indptr.astype(index_dtype, copy=False)


def _cast(matrix: Matrix, dtype: np.dtype[Any]) -> Matrix:
    if matrix.dtype.kind == "c" and dtype.kind != "c":
        raise InputError(f"holds complex values and {dtype} was asked for; ask for complex64 or complex128")
    with np.errstate(over="ignore"):
        data = matrix.data.astype(dtype)
    cast: Matrix = csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape)
    _check_finite(cast, f" in {dtype}; ask for a wider type")
    return cast


def _check_finite(matrix: Matrix, cure: str) -> None:
    finite = np.isfinite(matrix.data)
    if finite.all():
        return
    place = int(np.argmin(finite))
    row = int(np.searchsorted(matrix.indptr, place, side="right")) - 1
    raise InputError(
        f"entry (row {row}, column {int(matrix.indices[place])}), counted from 0, is {matrix.data[place]}"
        + (cure or "; expected finite numbers: remove or replace it")
    )
