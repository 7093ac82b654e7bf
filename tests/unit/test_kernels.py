"""The local product: every way to make it gives scipy's bits; epilogues, threads, choice, refusals."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.sparse import csr_array, random_array

from sparsecomm.errors import InputError
from sparsecomm.kernels import Epilogue, names, prepare, prepared, register, spmm, tuning
from sparsecomm.kernels.plain import Plain
from sparsecomm.kernels.sliced import Sliced
from sparsecomm.kernels.threads import num_threads
from sparsecomm.kernels.tiled import Tiled, cut_rows
from sparsecomm.kernels.tuning import Setting

ROWS, COLS = 311, 207


def matrix_of(dtype: npt.DTypeLike, *, rows: int = ROWS, cols: int = COLS) -> csr_array[Any]:
    """Values of all sizes, so that every order of a sum gives other bits; a full row, a full column, empty rows."""
    rng = np.random.default_rng(0)
    matrix = random_array((rows, cols), density=0.03, format="lil", rng=rng, data_sampler=rng.standard_normal)
    matrix[rows // 2, :] = rng.standard_normal(cols)
    matrix[:, cols // 3] = rng.standard_normal((rows, 1))
    matrix[rows - 20 :, :] = 0
    return csr_array(matrix.tocsr().astype(dtype))


def dense_of(rows: int, width: int, dtype: npt.DTypeLike, seed: int = 1) -> npt.NDArray[Any]:
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(dtype)


def sums(matrix: csr_array[Any], x: npt.NDArray[Any], start: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Add the products of every row in CSR order, rounding each: what every implementation has to give."""
    out = start.copy()
    for row in range(matrix.shape[0]):
        for place in range(matrix.indptr[row], matrix.indptr[row + 1]):
            out[row] += matrix.data[place] * x[matrix.indices[place]]
    return out


@pytest.mark.parametrize("width", [1, 2, 3, 17, 64, 100, 300])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_compiled_product_gives_the_bits_of_sums_in_order(dtype: str, width: int) -> None:
    matrix, x, before = matrix_of(dtype), dense_of(COLS, width, dtype), dense_of(ROWS, width, dtype, 2)
    out, kernel = np.full((ROWS, width), np.nan, dtype), Tiled(matrix, 1)
    kernel.multiply(x, out, 0, ROWS)
    assert np.array_equal(out, sums(matrix, x, np.zeros_like(out)))
    assert np.array_equal(out, matrix @ x)
    out[:] = before
    kernel.multiply(x, out, 0, ROWS, keep=True)
    assert np.array_equal(out, sums(matrix, x, before))


def test_fused_sums_have_bits_of_their_own_whatever_the_threads_and_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparsecomm.kernels.tiled._THREAD_NS", 1)
    matrix, x = matrix_of("f4"), dense_of(COLS, 100, "f4")
    fused = prepare(matrix, implementation="fused", threads=1).multiply(x)
    assert np.allclose(fused, matrix.astype(np.float64) @ x, atol=1e-4)
    assert not np.array_equal(fused, matrix @ x)
    assert np.array_equal(prepare(matrix, implementation="fused", threads=3).multiply(x), fused)
    narrow = prepare(matrix, implementation="fused").multiply(np.ascontiguousarray(x[:, 7:12]))
    assert np.array_equal(narrow, fused[:, 7:12])
    for threads in (1, 3):
        vector = prepare(matrix, implementation="fused", threads=threads).multiply(x[:, 3])
        assert np.array_equal(vector, matrix @ x[:, 3])


@pytest.mark.parametrize("rows", [1, 15, 16, 17, 311, 9000])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("dtype", "uniform"), [("f4", False), ("f4", True), ("f8", False)])
def test_vectors_by_slices_give_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, dtype: str, uniform: bool, threads: int, rows: int
) -> None:
    monkeypatch.setattr("sparsecomm.kernels.tiled._THREAD_NS", 1)
    monkeypatch.setattr("sparsecomm.kernels.tiled._VECTORS", 1)
    monkeypatch.setattr("sparsecomm.kernels.tiled._FEW_NONZEROS", 0)
    matrix = matrix_of(dtype, rows=rows) if rows > 100 else csr_array(matrix_of(dtype)[:rows])
    matrix.data[:] = 0.3 if uniform else matrix.data
    if not Sliced.suits(matrix):
        pytest.skip("this processor has no AVX-512")
    x, kernel = dense_of(COLS, 1, dtype), Tiled(matrix, threads)
    out, before = np.full((rows, 1), np.nan, dtype), dense_of(rows, 1, dtype, 2)
    for _ in range(3):
        kernel.multiply(x, out, 0, rows)
        assert np.array_equal(out, matrix @ x)
    kept = [before.copy(), before.copy()]
    kernel.multiply(x, kept[0], 0, rows, keep=True)
    Plain(matrix).multiply(x, kept[1], 0, rows, keep=True)
    assert np.array_equal(*kept)
    infinite = np.full((COLS, 1), np.inf, dtype)  # padding times infinity must not become NaN
    kernel.multiply(infinite, out, 0, rows)
    assert np.array_equal(out, matrix @ infinite, equal_nan=True)
    matrix.data *= 2
    kernel.update(matrix)
    kernel.multiply(x, out, 0, rows)
    assert np.array_equal(out, matrix @ x)


def test_columns_of_slices_are_counted_from_the_first_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparsecomm.kernels.tiled._THREAD_NS", 1)
    monkeypatch.setattr("sparsecomm.kernels.tiled._VECTORS", 1)
    rng, rows = np.random.default_rng(0), 140_000
    row = np.concatenate([np.arange(1000), np.arange(90_000, rows)])  # many slices in between are empty
    col = (row[:, None] + rng.integers(-5000, 5000, (row.size, 3))).clip(0, rows - 1)
    values = rng.standard_normal(col.size, dtype=np.float32)
    band = csr_array((values, (np.repeat(row, 3), col.reshape(-1))), shape=(rows, rows))
    scattered = csr_array(band[:, rng.permutation(rows)])
    if not Sliced.suits(band):
        pytest.skip("this processor has no AVX-512")
    x = dense_of(rows, 1, "f4")
    for matrix, num_bytes in ((band, 2), (scattered, 4)):
        for threads in (1, 2):
            kernel, out = Tiled(matrix, threads), np.full((rows, 1), np.nan, np.float32)
            for _ in range(3):
                kernel.multiply(x, out, 0, rows)
            assert np.array_equal(out, matrix @ x)
            assert kernel._slices is not None
            assert kernel._slices.entry_bytes == num_bytes + 4


SETTINGS = [Setting(), Setting(ahead=16), Setting(0, True, True)]


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("skewed", [False, True])
def test_threads_and_settings_change_no_bit(
    monkeypatch: pytest.MonkeyPatch, setting: Setting, threads: int, skewed: bool
) -> None:
    monkeypatch.setattr("sparsecomm.kernels.tiled._THREAD_NS", 1)
    matrix, x = matrix_of("f4"), dense_of(COLS, 100, "f4")
    if skewed:
        matrix = csr_array(matrix[ROWS // 2 - 1 : ROWS // 2 + 1])
    out = np.full((matrix.shape[0], 100), np.nan, np.float32)
    Tiled(matrix, threads).multiply(x, out, 0, matrix.shape[0], setting=setting)
    assert np.array_equal(out, matrix @ x)


@pytest.mark.parametrize("setting", [Setting(lines=True), Setting(8, lines=True, streamed=True)])
@pytest.mark.parametrize(("dtype", "width", "uniform"), [("f4", 16, False), ("f4", 64, True), ("f8", 24, False)])
def test_whole_lines_touch_nothing_beside_the_result(
    monkeypatch: pytest.MonkeyPatch, dtype: str, width: int, uniform: bool, setting: Setting
) -> None:
    monkeypatch.setattr("sparsecomm.kernels.tiled._THREAD_NS", 1)
    matrix, size = matrix_of(dtype), ROWS * width
    matrix.data[:] = 0.3 if uniform else matrix.data
    kernels, around = [Tiled(matrix, threads) for threads in (1, 3)], np.full(COLS * width + 64, np.nan, dtype)
    for begin, inside in itertools.product((0, 1, 7, 12, 16), (0, 3, 4, 15)):
        x = around[inside : inside + COLS * width].reshape(COLS, width)
        x[:] = dense_of(COLS, width, dtype)
        for kernel in kernels:
            memory = np.full(size + 64, 7, dtype)
            out = memory[begin : begin + size].reshape(ROWS, width)
            kernel.multiply(x, out, 0, ROWS, setting=setting)
            assert np.array_equal(out, matrix @ x)
            assert (memory[:begin] == 7).all()
            assert (memory[begin + size :] == 7).all()
        x[:] = np.nan


def test_values_may_become_all_the_same_and_differ_again() -> None:
    matrix, x = matrix_of("f4"), dense_of(COLS, 9, "f4")
    made = prepare(matrix, implementation="compiled")
    for values in (np.full_like(matrix.data, 0.3), matrix.data, np.where(matrix.data > 0, 0.0, -0.0).astype("f4")):
        changed = csr_array((values, matrix.indices, matrix.indptr), matrix.shape)
        made.update(changed)
        assert made.multiply(x).tobytes() == (changed @ x).tobytes()


@pytest.mark.parametrize("width", [1, 5, 40, 100])
@pytest.mark.parametrize("threads", [1, 3])
def test_transposed_product_needs_no_transposed_matrix(
    monkeypatch: pytest.MonkeyPatch, width: int, threads: int
) -> None:
    monkeypatch.setattr("sparsecomm.kernels.tiled._THREAD_NS", 1)
    matrix, y = matrix_of("f4"), dense_of(ROWS, width, "f4")
    out = prepare(matrix, implementation="compiled", threads=threads).multiply_transposed(y)
    assert np.array_equal(out, csr_array(matrix.T.tocsr()) @ y)
    assert np.allclose(prepare(matrix, implementation="scipy").multiply_transposed(y), out, atol=1e-4)
    turned = [slice(begin, end) for begin, end in pairwise(matrix.indptr)]
    indices, data = (np.concatenate([part[row][::-1] for row in turned]) for part in (matrix.indices, matrix.data))
    unsorted = csr_array((data, indices, matrix.indptr), matrix.shape)
    assert np.array_equal(prepare(unsorted, implementation="compiled", threads=threads).multiply_transposed(y), out)


@pytest.mark.parametrize("implementation", ["scipy", "compiled"])
@pytest.mark.parametrize("bias", [None, 0.5, "rows", "columns"])
def test_epilogue_equals_numpy(implementation: str, bias: Any) -> None:
    matrix, x = matrix_of("f4"), dense_of(COLS, 21, "f4")
    bias = {"rows": dense_of(ROWS, 1, "f4", 5), "columns": dense_of(1, 21, "f4", 6)[0]}.get(bias, bias)
    expected = matrix @ x + np.float32(0 if bias is None else bias)
    made = prepare(matrix, implementation=implementation)
    assert np.array_equal(made.multiply(x, epilogue=Epilogue(bias)), expected)
    assert np.array_equal(made.multiply(x, epilogue=Epilogue(bias, lower=0)), np.maximum(expected, 0))
    assert np.array_equal(made.multiply(x, epilogue=Epilogue(bias, 0, 1.5)), np.clip(expected, 0, np.float32(1.5)))


@pytest.mark.parametrize("implementation", ["scipy", "compiled"])
def test_bounds_let_nan_pass(implementation: str) -> None:
    matrix, x = csr_array(np.eye(3, dtype=np.float32)), np.array([[np.nan], [5], [-5]], np.float32)
    out = prepare(matrix, implementation=implementation).multiply(x, epilogue=Epilogue(lower=-1, upper=1))
    assert np.array_equal(out, np.array([[np.nan], [1], [-1]], np.float32), equal_nan=True)


@pytest.mark.parametrize("implementation", ["scipy", "compiled"])
@pytest.mark.parametrize(("alpha", "beta"), [(1, 0), (2, 0), (1, 1), (-0.5, 3)])
def test_alpha_and_beta(implementation: str, alpha: float, beta: float) -> None:
    matrix, x, out = matrix_of("f8"), dense_of(COLS, 6, "f8"), dense_of(ROWS, 6, "f8", 3)
    expected = alpha * (matrix.toarray() @ x) + beta * out
    spmm(prepare(matrix, implementation=implementation), x, out, alpha=alpha, beta=beta)
    assert np.allclose(out, expected, rtol=1e-12, atol=1e-12)


def test_vectors_and_blocks_that_are_not_contiguous() -> None:
    made, wide = prepare(matrix_of("f4"), implementation="compiled"), dense_of(COLS, 40, "f4")
    assert np.array_equal(made.multiply(wide[:, 3]), made.matrix @ wide[:, 3])
    assert np.array_equal(made.multiply(wide[:, 5:25]), made.matrix @ wide[:, 5:25])
    assert np.array_equal(made.multiply(np.asfortranarray(wide)), made.matrix @ wide)
    whole = np.ones((ROWS, 50), np.float32)
    made.multiply(wide, whole[:, 5:45])
    assert np.array_equal(whole[:, 5:45], made.matrix @ wide)
    assert (whole[:, :5] == 1).all()
    assert (whole[:, 45:] == 1).all()


def test_values_may_change() -> None:
    matrix, x = matrix_of("f4"), dense_of(COLS, 9, "f4")
    made = prepare(matrix, implementation="compiled")
    made.multiply(x)
    made.update(csr_array((matrix.data * 3, matrix.indices, matrix.indptr), matrix.shape))
    assert np.array_equal(made.multiply(x), csr_array((matrix.data * 3, matrix.indices, matrix.indptr)) @ x)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0)])
def test_nothing_to_multiply(shape: tuple[int, int]) -> None:
    for implementation in ("scipy", "compiled"):
        made = prepare(csr_array(shape, dtype=np.float32), implementation=implementation)
        assert np.array_equal(made.multiply(np.ones((shape[1], 3), np.float32)), np.zeros((shape[0], 3)))
        assert made.multiply(np.ones((shape[1], 0), np.float32)).shape == (shape[0], 0)
        assert np.array_equal(made.multiply_transposed(np.ones((shape[0], 2), np.float32)), np.zeros((shape[1], 2)))


def test_auto_loads_compiled_loops_only_for_those_who_multiply_much() -> None:
    code = """
import sys, numpy as np
from scipy.sparse import random_array
from sparsecomm.kernels import prepare, prepared
A = prepare(random_array((500, 500), density=0.1, format="csr", dtype=np.float32))
x = np.ones((500, 8), np.float32)
first = A.multiply(x)
assert "numba" not in sys.modules
prepared.LOADING_WORK = 25000 * 8
A.multiply(x)
assert "numba" in sys.modules
assert np.array_equal(A.multiply(x), first)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stderr


def test_implementations_are_registered_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from sparsecomm.kernels import registry

    monkeypatch.setattr(registry, "_makers", dict(registry._makers))
    register("mine", lambda matrix, threads: Tiled(matrix, threads))
    assert names() == ["compiled", "fused", "mine", "scipy"]
    matrix, x = matrix_of("f4"), dense_of(COLS, 3, "f4")
    assert np.array_equal(prepare(matrix, implementation="mine").multiply(x), matrix @ x)
    with pytest.raises(ValueError, match="'mine' exists already"):
        register("mine", lambda matrix, threads: Tiled(matrix, threads))


def test_refusals_say_what_was_given() -> None:
    made = prepare(matrix_of("f4"))
    with pytest.raises(InputError, match=r"X has shape \(3, 2\); this product needs 207 rows"):
        made.multiply(np.ones((3, 2), np.float32))
    with pytest.raises(InputError, match=r"out has shape \(3, 2\); this product needs \(311, 2\)"):
        made.multiply(np.ones((COLS, 2), np.float32), np.ones((3, 2), np.float32))
    with pytest.raises(InputError, match=r"bias of shape \(5,\) fits no result of shape \(311, 2\)"):
        made.multiply(np.ones((COLS, 2), np.float32), epilogue=Epilogue(np.ones(5)))
    with pytest.raises(
        InputError, match="no implementation 'best' of the local product; there are compiled, fused, scipy"
    ):
        prepare(matrix_of("f4"), implementation="best")
    with pytest.raises(InputError, match="must be a scipy sparse array of two dimensions, not ndarray"):
        prepare(np.ones((2, 2)))  # type: ignore[arg-type]


@pytest.mark.parametrize("parts", [1, 2, 7, 1000])
def test_rows_are_cut_into_parts_of_equal_nonzeros(parts: int) -> None:
    indptr = matrix_of("f4").indptr
    cuts = cut_rows(indptr, parts)
    assert cuts[0] == 0
    assert cuts[-1] == ROWS
    assert np.all(np.diff(cuts) > 0)
    sizes = np.diff(indptr[cuts])
    assert sizes.max() <= indptr[-1] / parts + 2 * np.diff(indptr).max()


def test_ranks_in_threads_may_multiply_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparsecomm.kernels.tiled._THREAD_NS", 1)
    made, results = prepare(matrix_of("f4"), implementation="compiled", threads=3), dict[int, bool]()

    def rank(number: int) -> None:
        x = dense_of(COLS, 20, "f4", number)
        results[number] = all(np.array_equal(made.multiply(x), made.matrix @ x) for _ in range(20))

    ranks = [threading.Thread(target=rank, args=(number,)) for number in range(4)]
    for one in ranks:
        one.start()
    for one in ranks:
        one.join()
    assert results == dict.fromkeys(range(4), True)


def test_threads_are_those_of_the_environment_or_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert prepare(matrix_of("f4")).threads == 3
    assert num_threads(sharers=2) == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    cores = len(os.sched_getaffinity(0))
    assert prepare(matrix_of("f4")).threads == cores
    assert num_threads(sharers=cores) == num_threads(sharers=10 * cores) == 1
    assert prepared.Prepared(matrix_of("f4"), threads=1).threads == 1


def test_what_was_measured_once_is_remembered_for_matrices_alike(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    matrix, tried = matrix_of("f4"), list[Setting]()
    ahead = Setting(ahead=16, lines=True)

    def run(setting: Setting, first: int, last: int) -> None:
        assert 0 <= first < last <= ROWS
        tried.append(setting)
        end = time.thread_time() + (0 if setting == ahead else 0.01)
        while time.thread_time() < end:
            pass

    assert tuning.choose_setting(matrix, 64, 1, run) == ahead
    assert set(tried) == {Setting(distance, lines=True) for distance in (0, 8, 16)}
    tried.clear()
    assert tuning.choose_setting(csr_array(matrix[1:]), 64, 1, run) == ahead
    assert tried == []
    assert tuning.choose_setting(matrix, 1 << 14, 1, run) == ahead
    assert {setting.streamed for setting in tried} == {False, True}
    database = tmp_path / "sparsecomm" / "kernels" / "tuning.json"
    for damaged in ("{", '{"version": 1}', database.read_text().replace('"version": 5', '"version": 0')):
        tried.clear()
        database.write_text(damaged)
        assert tuning.choose_setting(matrix, 64, 1, run) == ahead
        assert tried


def test_tuned_products_have_the_same_bits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sparsecomm.kernels.tiled.TUNED_WORK", 1)
    made, x = prepare(matrix_of("f4"), implementation="compiled", threads=1), dense_of(COLS, 100, "f4")
    assert np.array_equal(made.multiply(x), made.matrix @ x)
    assert (tmp_path / "sparsecomm" / "kernels" / "tuning.json").exists()
