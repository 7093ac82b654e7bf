"""Generators and fingerprints, against formulas written another way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from sparsecomm.errors import InputError
from sparsecomm.io import read_matrix
from sparsecomm.io.fingerprint import fingerprint, matrix_fingerprint, structure_hash
from sparsecomm.io.generators import Field, Generator, grid2d, register_generator


def assert_equal(matrix: Any, expected: Any) -> None:
    assert matrix.has_canonical_format
    assert matrix.shape == expected.shape
    assert matrix.nnz == expected.nnz
    assert (matrix != sp.csr_array(expected)).nnz == 0


def tridiagonal(size: int, side: float, centre: float) -> sp.dia_array:
    return sp.diags_array([[side] * (size - 1), [centre] * size, [side] * (size - 1)], offsets=[-1, 0, 1], dtype=float)


@pytest.mark.parametrize(
    ("spec", "rows", "cols"), [("7", 7, 7), ("4:9", 4, 9), ("1:5", 1, 5), ("5:1", 5, 1), ("2", 2, 2)]
)
def test_grid2d_is_the_kronecker_laplacian(spec: str, rows: int, cols: int) -> None:
    first = tridiagonal(rows, -1, 2) if rows > 1 else sp.coo_array([[2.0]])
    second = tridiagonal(cols, -1, 2) if cols > 1 else sp.coo_array([[2.0]])
    assert_equal(read_matrix(f"grid2d:{spec}"), sp.kronsum(second, first, format="csr"))


@pytest.mark.parametrize("size", [2, 3, 6])
def test_grid3d_is_the_kronecker_laplacian(size: int) -> None:
    line = tridiagonal(size, -1, 2)
    assert_equal(read_matrix(f"grid3d:{size}"), sp.kronsum(line, sp.kronsum(line, line), format="csr"))


@pytest.mark.parametrize("size", [2, 3, 5])
def test_grid3d27_is_a_product_of_lines(size: int) -> None:
    line = tridiagonal(size, 1, 1)
    cube = sp.kron(line, sp.kron(line, line))
    assert_equal(read_matrix(f"grid3d27:{size}"), sp.csr_array(27 * sp.eye_array(size**3) - cube))


def test_grids_of_one_point() -> None:
    assert read_matrix("grid2d:1").toarray() == [[4]]
    assert read_matrix("grid3d:1").toarray() == [[6]]
    assert read_matrix("grid3d27:1").toarray() == [[26]]


@pytest.mark.parametrize("size", [32, 64, 1024])
def test_radixnet_is_the_kronecker_formula(size: int) -> None:
    inner = size // 16
    for layer in range(int(np.log2(inner))):
        # From i to j is an edge iff j = i or j = i - 2**layer; rows of the formula are FROM.
        factor = np.eye(inner) + np.roll(np.eye(inner), -(2**layer), axis=1)
        formula = np.kron(np.ones((16, 16)), factor) / 16
        matrix = read_matrix(f"radixnet:{size}:{layer}")
        assert_equal(matrix, sp.csr_array(formula.T))
        assert (np.diff(matrix.indptr) == 32).all()
        assert (np.bincount(matrix.indices) == 32).all()


@pytest.mark.parametrize("layer", range(6))
def test_radixnet_is_the_official_network(data_dir: Any, layer: int) -> None:
    official = read_matrix(str(data_dir / f"sparse_dnn/n1024-l{layer + 1}.mtx"))
    assert_equal(read_matrix(f"radixnet:1024:{layer}"), official.T.tocsr())


def test_rmat_repeats_and_depends_on_its_seed() -> None:
    first, again, other = (read_matrix(spec) for spec in ("rmat:10:8:3", "rmat:10:8:3", "rmat:10:8:4"))
    assert_equal(first, again)
    np.testing.assert_array_equal(first.data, again.data)
    assert matrix_fingerprint(first) != matrix_fingerprint(other)
    assert_equal(read_matrix("rmat:6"), read_matrix("rmat:6:16:0"))


def test_rmat_quadrants() -> None:
    # With many draws a place, merging would hide the probabilities: few draws over many places at the top level.
    matrix = read_matrix("rmat:18:1:0").tocoo()
    half = 1 << 17
    counts = np.bincount(2 * (matrix.row >= half) + (matrix.col >= half), minlength=4)
    np.testing.assert_allclose(counts / counts.sum(), [0.57, 0.19, 0.19, 0.05], atol=0.005)
    assert (matrix.row == matrix.col).any()


def test_rmat_every_bit_has_the_quadrants() -> None:
    matrix = read_matrix("rmat:18:1:5").tocoo()
    for bit in range(1, 18):
        row, col = (matrix.row >> bit) & 1, (matrix.col >> bit) & 1
        counts = np.bincount(2 * row + col, minlength=4)
        np.testing.assert_allclose(counts / counts.sum(), [0.57, 0.19, 0.19, 0.05], atol=0.03)


def test_er_is_uniform() -> None:
    matrix = read_matrix("er:4000:20:1")
    # 80,000 draws of 16 million places: a pair in about 200 falls together.
    assert 79_500 < matrix.nnz <= 80_000
    assert abs(np.diff(matrix.indptr).mean() - 20) < 0.2
    assert np.diff(matrix.indptr).max() < 60
    assert abs(matrix.indices.mean() - 1999.5) < 20
    assert_equal(matrix, read_matrix("er:4000:20:1"))


@pytest.mark.parametrize("spec", ["rmat:12", "er:500:6"])
def test_random_values_are_in_0_1_and_not_symmetric(spec: str) -> None:
    matrix = read_matrix(spec)
    assert matrix.data.min() > 0
    assert matrix.data.max() <= 1
    assert np.unique(matrix.data).size == matrix.nnz
    assert read_matrix(spec, dtype=np.float32).data.min() > 0


def test_merged_to_the_full_matrix() -> None:
    assert read_matrix("er:3:1000").nnz == 9
    assert read_matrix("rmat:1:10000").nnz == 4
    assert read_matrix("er:1:1").shape == (1, 1)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("rmat", "has 0 numbers; expected rmat:SCALE[:EDGEFACTOR[:SEED]]"),
        ("rmat:", "SCALE is ''"),
        ("rmat:99", "SCALE is 99; expected 1 to 30"),
        ("rmat:0", "SCALE is 0"),
        ("rmat:abc", "SCALE is 'abc'; expected a whole number of 1 to 30"),
        ("rmat:10:0", "EDGEFACTOR is 0"),
        ("rmat:10:16:-1", "SEED is '-1'"),
        ("rmat:10:16:0:7", "has 4 numbers"),
        ("rmat:10::7", "EDGEFACTOR is ''"),
        ("rmat:1.5", "SCALE is '1.5'"),
        ("rmat:1_0", "SCALE is '1_0'"),
        ("rmat:\u0661", "SCALE is"),
        ("rmat:30:16", "expected at most 8589934592"),
        ("er:10", "expected er:N:DEGREE[:SEED]"),
        ("er:0:5", "N is 0"),
        ("er:2147483648:100", "draws"),
        ("grid2d:-4", "N is '-4'"),
        ("grid2d:100000:100000", "points"),
        ("grid2d:3:4:5", "expected grid2d:N[:M]"),
        ("grid3d:99999999999999999999", "N is"),
        ("grid3d:2048", "points"),
        ("grid3d27:0", "N is 0"),
        ("radixnet:1000:0", "power of two"),
        ("radixnet:16:0", "N is 16"),
        ("radixnet:1024:6", "LAYER is 6; expected 0 to 5 for N = 1024"),
        ("radixnet:1024", "expected radixnet:N:LAYER"),
    ],
)
def test_refused(spec: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        read_matrix(spec)
    assert str(caught.value).startswith(f"{spec}: ")
    assert says in str(caught.value)
    assert spec.split(":")[0] + ":" in str(caught.value)


@pytest.mark.parametrize(
    "spec", ["rmat:20", "er:1000000:16", "grid2d:2000", "grid3d:200", "grid3d27:99", "radixnet:1048576:3"]
)
def test_more_than_memory_is_refused(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparsecomm.io.limits.memory_limit", lambda: 1 << 26)
    with pytest.raises(InputError, match="GiB"):
        read_matrix(spec)


def test_a_generator_has_one_name() -> None:
    with pytest.raises(ValueError, match="exists already"):
        register_generator("rmat", Generator(grid2d, (Field("N", 1, 2),)))


# --- fingerprints


def test_fingerprint_is_of_the_structure_only() -> None:
    matrix = read_matrix("er:200:5")
    other = matrix.copy()
    other.data[:] = 0.0
    assert matrix_fingerprint(matrix) == matrix_fingerprint(other)
    assert len(matrix_fingerprint(matrix)) == 16
    int(matrix_fingerprint(matrix), 16)


def test_fingerprint_adds_up_over_parts_in_any_order() -> None:
    matrix = read_matrix("rmat:9:8")
    entries = matrix.tocoo()
    order = np.random.default_rng(0).permutation(matrix.nnz)
    parts = np.array_split(order, 5)
    with np.errstate(over="ignore"):
        total = sum((structure_hash(entries.row[part], entries.col[part]) for part in parts), np.uint64(0))
    assert fingerprint(matrix.shape, np.uint64(total)) == matrix_fingerprint(matrix)
    assert isinstance(structure_hash(entries.row[:0], entries.col[:0]), np.uint64)


def test_fingerprint_in_blocks_and_index_types(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = read_matrix("rmat:9:8").tocoo()
    whole = structure_hash(entries.row, entries.col)
    monkeypatch.setattr("sparsecomm.io.fingerprint._BLOCK", 100)
    assert structure_hash(entries.row.astype(np.int64), entries.col.astype(np.uint32)) == whole


def test_fingerprints_differ() -> None:
    base = read_matrix("er:100:3")
    one_more = sp.csr_array(base + sp.coo_array(([1.0], ([7], [9])), shape=base.shape))
    wider = sp.csr_array((base.data, base.indices, base.indptr), shape=(100, 101))
    taller = sp.csr_array((base.data, base.indices, np.append(base.indptr, base.nnz)), shape=(101, 100))
    matrices = [base, base.T.tocsr(), one_more, wider, taller, read_matrix("er:100:3:1"), sp.csr_array((100, 100))]
    assert len({matrix_fingerprint(matrix) for matrix in matrices}) == len(matrices)
