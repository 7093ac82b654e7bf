"""The local product against scipy's: dtypes, shapes, memory, chunks, values that change."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.sparse import csr_array, random_array

from sparsecomm.kernels import Block, spmm

ROWS, COLS = 211, 97


def matrix_of(dtype: npt.DTypeLike, *, rows: int = ROWS, cols: int = COLS, seed: int = 0) -> csr_array[Any]:
    """Small whole numbers, so that sums are exact in every dtype and order; some rows are empty."""
    rng = np.random.default_rng(seed)
    matrix = random_array((rows, cols), density=0.02, format="csr", rng=rng)
    matrix.data = rng.integers(1, 4, matrix.nnz).astype(dtype)
    return csr_array(matrix)


def dense_of(rows: int, width: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    return np.random.default_rng(1).integers(0, 4, (rows, width)).astype(dtype)


def block_of(matrix: csr_array[Any]) -> Block:
    coo = matrix.tocoo()
    block = Block(matrix.shape, coo.row.astype(np.int64), coo.col.astype(np.int64), np.arange(matrix.nnz))
    block.update(matrix.data)
    return block


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("width", [0, 1, 2, 33])
@pytest.mark.parametrize(
    ("dtype", "x_dtype"),
    [
        ("f4", "f4"),
        ("f8", "f4"),
        ("f4", "f8"),
        ("f4", "f2"),
        ("i1", "f2"),
        ("i4", "i4"),
        ("i8", "f4"),
        ("u1", "u1"),
        ("c8", "c8"),
        ("c8", "f8"),
    ],
)
def test_spmm_equals_dense_product(dtype: str, x_dtype: str, width: int, accumulate: bool) -> None:
    matrix, x = matrix_of(dtype), dense_of(COLS, width, x_dtype)
    result = np.result_type(matrix.dtype, x.dtype)
    before = dense_of(ROWS, width, result)
    out = before.copy()
    spmm(matrix, x, out, beta=float(accumulate))
    expected = matrix.toarray().astype(result) @ x.astype(result) + before * accumulate
    assert np.array_equal(out, expected)


@pytest.mark.parametrize("accumulate", [False, True])
def test_result_goes_into_memory_that_is_not_contiguous(accumulate: bool) -> None:
    matrix, x, whole = matrix_of("f4"), dense_of(COLS, 5, "f4"), np.ones((ROWS, 10), dtype=np.float32)
    spmm(matrix, x, whole[:, ::2], beta=float(accumulate))
    assert np.array_equal(whole[:, ::2], matrix @ x + accumulate)
    assert (whole[:, 1::2] == 1).all()


@pytest.mark.parametrize("width", [1, 3])
def test_x_that_is_not_contiguous_is_read_as_it_stands(width: int) -> None:
    matrix, x = matrix_of("f4"), np.asfortranarray(dense_of(COLS, 2 * width, "f4"))[:, ::2]
    out = np.empty((ROWS, width), dtype=np.float32)
    spmm(matrix, x, out)
    assert np.array_equal(out, matrix @ x)


def test_garbage_in_the_result_is_overwritten() -> None:
    matrix, x, out = matrix_of("f4"), dense_of(COLS, 4, "f4"), np.full((ROWS, 4), np.nan, dtype=np.float32)
    spmm(matrix, x, out)
    assert np.array_equal(out, matrix @ x)


@pytest.mark.parametrize("work", [1, 50, 1 << 22])
@pytest.mark.parametrize("width", [1, 7])
@pytest.mark.parametrize("x_dtype", ["f4", "f8"])
def test_chunks_make_the_whole_product(monkeypatch: pytest.MonkeyPatch, work: int, width: int, x_dtype: str) -> None:
    monkeypatch.setattr("sparsecomm.kernels.local.CHUNK_WORK", work)
    matrix, x = matrix_of("f4"), dense_of(COLS, width, x_dtype)
    out = np.full((ROWS, width), np.nan, dtype=x_dtype)
    pauses = sum(1 for _ in block_of(matrix).multiply_in_chunks(x, out))
    assert pauses == 1 if work > 50 else pauses > 5
    assert np.array_equal(out, matrix @ x)


@pytest.mark.parametrize(("rows", "cols"), [(0, 5), (5, 0), (0, 0)])
def test_block_without_rows_or_columns(rows: int, cols: int) -> None:
    block, out = block_of(matrix_of("f4", rows=rows, cols=cols)), np.full((rows, 3), np.nan, dtype=np.float32)
    for _ in block.multiply_in_chunks(np.ones((cols, 3), dtype=np.float32), out):
        pass
    assert (out == 0).all()


def test_block_follows_its_values_and_so_does_its_transpose() -> None:
    matrix = matrix_of("f8")
    block = block_of(matrix)
    turned = block.transposed()
    block.update(-2 * matrix.data)
    x, y = dense_of(COLS, 3, "f8"), dense_of(ROWS, 3, "f8")
    out, back = np.empty((ROWS, 3)), np.empty((COLS, 3))
    block.multiply(x, out)
    turned.multiply(y, back)
    assert np.array_equal(out, -2 * (matrix @ x))
    assert np.array_equal(back, -2 * (matrix.T @ y))
