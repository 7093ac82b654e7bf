"""Structured weights: what is kept, exact sizes, products against the masked dense matrix; formats of users."""

from __future__ import annotations

import logging
import pickle
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.sparse import csr_array

from sparsecomm.errors import InputError
from sparsecomm.kernels import formats, prepare
from sparsecomm.kernels.form import fuses
from sparsecomm.kernels.formats import Format, get_format, register_format
from sparsecomm.kernels.structured import Structured, parse_pattern

Dense = npt.NDArray[Any]


def weights(rows: int, cols: int, dtype: npt.DTypeLike) -> Dense:
    return np.random.default_rng(0).standard_normal((rows, cols)).astype(dtype)


def kept_by_hand(dense: Dense, n: int, m: int, v: int) -> Dense:
    """Zero what is not kept, one group after the other."""
    result = np.zeros_like(dense)
    for first in range(0, dense.shape[1], m):
        for row in range(dense.shape[0]):
            columns = list(range(first, min(first + m, dense.shape[1])))
            if v:
                block = np.abs(dense[row // v * v : row // v * v + v].astype(np.float64)).sum(axis=0)
                columns = sorted(sorted(columns, key=lambda column: -block[column])[:4])
            for column in sorted(columns, key=lambda column: -abs(dense[row, column]))[:n]:
                result[row, column] = dense[row, column]
    return result


def exact_sums(packed: Structured, x: Dense) -> Dense:
    """Return the sums in the order of the columns."""
    return prepare(packed.to_csr(), implementation="fused" if fuses() else "compiled").multiply(x)


@pytest.mark.parametrize("pattern", ["2:4", "1:4", "1:16", "3:8", "16:2:8", "7:1:5"])
@pytest.mark.parametrize("shape", [(32, 64), (21, 37)])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_products_equal_the_masked_dense_matrix(pattern: str, shape: tuple[int, int], dtype: str) -> None:
    dense = weights(*shape, dtype)
    packed = Structured.pack(dense, *parse_pattern(pattern))
    masked = kept_by_hand(dense, *parse_pattern(pattern))
    assert packed.name == pattern
    assert np.array_equal(packed.to_csr().toarray(), masked)
    for width in (1, 40) if dtype == "f4" else (40,):
        x = weights(shape[1], width, "f4" if dtype == "f2" else dtype)
        for threads in (1, 3):
            found = packed.multiply(x, threads=threads)
            assert width == 1 or np.array_equal(found, exact_sums(packed, x))
            assert np.allclose(found, masked.astype(x.dtype) @ x, atol=1e-5)


@pytest.mark.parametrize("pattern", ["2:4", "3:8", "1:16", "16:2:8", "1:256"])
def test_products_of_many_blocks_and_tiles(pattern: str) -> None:
    packed = Structured.pack(weights(530, 1301, "f4"), *parse_pattern(pattern))
    x = weights(1301, 300, "f4")
    for threads in (1, 3):
        assert np.array_equal(packed.multiply(x, threads=threads), exact_sums(packed, x))


@pytest.mark.parametrize(
    ("pattern", "dtype", "share"),
    [
        ("2:4", "f2", Fraction(9, 16)),
        ("1:4", "f2", Fraction(9, 32)),
        ("1:16", "f2", Fraction(5, 64)),
        ("2:4", "f4", Fraction(17, 32)),
        ("1:16", "f4", Fraction(9, 128)),
        # 2 of 8 values, two bits for each, and four column numbers of four bytes for every 64 x 8.
        ("64:2:8", "f2", Fraction(2, 8) + Fraction(2 * 2, 8 * 16) + Fraction(16, 64 * 8 * 2)),
    ],
)
def test_packed_sizes_are_exact(pattern: str, dtype: str, share: Fraction) -> None:
    dense = weights(128, 256, dtype)
    packed = Structured.pack(dense, *parse_pattern(pattern))
    assert Fraction(packed.num_bytes, dense.nbytes) == share
    assert get_format(pattern).footprint(packed) == packed.num_bytes


@pytest.mark.parametrize("pattern", ["2:4", "1:16", "64:2:8"])
def test_every_row_keeps_as_much_as_any_other(pattern: str) -> None:
    rows = np.diff(Structured.pack(weights(128, 256, "f4"), *parse_pattern(pattern)).to_csr().indptr)
    assert rows.max() / rows.mean() == 1.0


def test_results_may_lie_in_any_memory_and_weights_be_copied() -> None:
    packed, x = Structured.pack(weights(21, 37, "f4"), 2, 4), weights(37, 40, "f4")
    expected = packed.multiply(x)
    for out in (np.empty((21, 40), np.float32, order="F"), np.empty((21, 50), np.float32)[:, 3:43]):
        assert packed.multiply(np.asfortranarray(x), out) is out
        assert np.array_equal(out, expected)
    assert np.array_equal(pickle.loads(pickle.dumps(packed)).multiply(x), expected)


def test_whole_numbers_give_the_dense_product_exactly() -> None:
    numbers = np.random.default_rng(1)
    dense, x = (numbers.integers(-8, 9, shape).astype(np.float16) for shape in ((70, 90), (90, 40)))
    packed = Structured.pack(dense, 2, 4)
    expected = kept_by_hand(dense, 2, 4, 0).astype(np.int64) @ x.astype(np.int64)
    assert np.array_equal(packed.multiply(x.astype(np.float32)), expected)


def test_padding_takes_no_part_in_the_product() -> None:
    packed = Structured.pack(weights(5, 6, "f4"), 2, 4)
    x = np.full((6, 40), np.inf, np.float32)
    assert not np.isnan(Structured.pack(np.abs(weights(5, 6, "f4")), 2, 4).multiply(x)).any()
    assert packed.values.shape == (5, 4)


@pytest.mark.parametrize("shape", [(0, 8), (8, 0)])
def test_weights_without_rows_or_columns(shape: tuple[int, int]) -> None:
    packed = Structured.pack(np.zeros(shape, np.float32), 2, 4)
    assert np.array_equal(packed.multiply(np.ones((shape[1], 40), np.float32)), np.zeros((shape[0], 40)))


@pytest.mark.parametrize("pattern", ["5:4", "0:4", "2:6", "4:5:8", "4:2:3", "1:512"])
def test_patterns_that_cannot_be_are_refused(pattern: str) -> None:
    with pytest.raises(InputError, match="cannot be"):
        Structured.pack(weights(8, 8, "f4"), *parse_pattern(pattern))


def test_refusals_say_what_was_given() -> None:
    with pytest.raises(InputError, match="pattern '2x4' is neither N:M, as 2:4, nor V:N:M"):
        parse_pattern("2x4")
    with pytest.raises(InputError, match="weights must be a matrix of a floating type"):
        Structured.pack(np.ones((4, 4), np.int32), 2, 4)
    packed = Structured.pack(weights(8, 8, "f4"), 2, 4)
    with pytest.raises(InputError, match=r"X is \(8, 2\) float64; this product needs \(8, k\) float32"):
        packed.multiply(np.ones((8, 2)))
    with pytest.raises(InputError, match=r"out is \(8, 3\) float32, not \(8, 2\) float32"):
        packed.multiply(np.ones((8, 2), np.float32), np.ones((8, 3), np.float32))
    with pytest.raises(InputError, match="no format 'ell'; there are csr, and patterns"):
        get_format("ell")


def test_formats_of_users_multiply_and_warn_once_where_they_fall_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(formats, "_formats", dict(formats._formats))
    dense, x = weights(12, 9, "f4"), weights(9, 40, "f4")
    register_format(Format("kept", lambda a: a.copy(), csr_array, lambda packed: int(packed.nbytes)))
    with pytest.raises(ValueError, match="'kept' exists already"):
        register_format(get_format("kept"))
    kept = get_format("kept")
    with caplog.at_level(logging.WARNING, "sparsecomm"):
        for _ in range(3):
            assert np.allclose(kept.multiply(kept.pack(dense), x), dense @ x, atol=1e-5)
    assert [record.message[:35] for record in caplog.records] == ["format kept has no product of its o"]
    assert kept.footprint(kept.pack(dense)) == dense.nbytes
    csr = get_format("csr")
    assert np.allclose(csr.multiply(csr.pack(dense), x), dense @ x, atol=1e-5)
    assert csr.footprint(csr.pack(dense)) == 12 * 9 * 8 + 13 * 4
    two = get_format("2:4")
    assert np.allclose(two.multiply(two.pack(dense), x), kept_by_hand(dense, 2, 4, 0) @ x, atol=1e-5)
