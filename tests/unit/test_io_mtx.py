"""Matrix Market files: what each kind means, and what each kind of broken file is answered with."""

from __future__ import annotations

import gzip
import io
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

from sparsecomm.io import read_matrix
from tests.read_files import MTX, Write, assert_equal, check_canonical, error, peak_bytes


@pytest.mark.parametrize("name", ["a.mtx", "a.mtx.gz"])
def test_mtx_round_trip(write: Write, random_matrix: sp.csr_array, name: str) -> None:
    out = io.BytesIO()
    scipy.io.mmwrite(out, random_matrix, precision=17)
    assert_equal(read_matrix(write(name, out.getvalue())), random_matrix)


def test_mtx_keeps_zeros_and_sums_duplicates(write: Write) -> None:
    matrix = read_matrix(write("a.mtx", MTX + "2 3 4\n2 1 0\n1 3 1.5\n1 3 2\n1 1 -1\n"))
    assert_equal(matrix, sp.csr_array(([-1.0, 3.5, 0.0], [0, 2, 0], [0, 2, 3]), shape=(2, 3)))


@pytest.mark.parametrize(
    ("kind", "entries", "dense"),
    [
        ("coordinate real symmetric", "2 2 2\n1 1 5\n2 1 3\n", [[5, 3], [3, 0]]),
        ("coordinate real skew-symmetric", "2 2 1\n2 1 3\n", [[0, -3], [3, 0]]),
        ("coordinate complex hermitian", "2 2 2\n1 1 5 0\n2 1 3 1\n", [[5, 3 - 1j], [3 + 1j, 0]]),
        ("coordinate pattern general", "2 2 2\n1 2\n2 1\n", [[0, 1], [1, 0]]),
        ("coordinate pattern symmetric", "2 2 1\n2 1\n", [[0, 1], [1, 0]]),
        ("coordinate integer general", "2 2 1\n2 1 7\n", [[0, 0], [7, 0]]),
        ("coordinate real symmetric", "2 2 1\n1 2 3\n", [[0, 3], [3, 0]]),
        ("coordinate real symmetric", "2 2 2\n2 1 3\n2 1 4\n", [[0, 7], [7, 0]]),
        ("array real general", "2 2\n1\n2\n0\n4\n", [[1, 0], [2, 4]]),
        ("array real symmetric", "2 2\n1\n2\n4\n", [[1, 2], [2, 4]]),
        ("array real skew-symmetric", "2 2\n2\n", [[0, -2], [2, 0]]),
        ("array complex general", "1 2\n1 2\n0 4\n", [[1 + 2j, 4j]]),
    ],
)
def test_mtx_kinds(write: Write, kind: str, entries: str, dense: list[list[complex]]) -> None:
    matrix = read_matrix(write("a.mtx", f"%%MatrixMarket matrix {kind}\n{entries}"))
    check_canonical(matrix)
    np.testing.assert_array_equal(matrix.toarray(), dense)
    assert matrix.dtype == (np.complex128 if "complex" in kind else np.float64)


@pytest.mark.parametrize(
    "text",
    [
        MTX + "%%GraphBLAS type float\n% words\n\n2 2 1\n1 2 3\n",
        MTX.replace("\n", "\r\n") + "2 2 1\r\n1 2 3\r\n",
        MTX + "2 2 1\n1 2 3",
        MTX + "2 2 1\n1 2 3 ",
        MTX.replace("coordinate real", "Coordinate REAL") + "2\t2\t1\n1\t2\t3\n\n\n",
    ],
)
def test_mtx_odd_but_legal(write: Write, text: str) -> None:
    np.testing.assert_array_equal(read_matrix(write("a.mtx", text)).toarray(), [[0, 3], [0, 0]])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hello\n", "banner"),
        (MTX, "header"),
        (MTX + "2 2\n1 1 1\n", "header"),
        (MTX + "-2 2 1\n1 1 1\n", "negative"),
        (MTX + "0 0 0\n", "at least one row"),
        (MTX + "99999999999999999999999 2 1\n1 1 1\n", "out of range"),
        (MTX + "2 2 2\n1 1 5\n", "promises 2 entries|Truncated"),
        (MTX + "2 2 3\n1 1 5.00000\n2 2 5.00000\n", "Truncated"),
        (MTX + "2 2 1\n1 1 5\n2 2 5\n", "Too many lines"),
        (MTX + "2 2 1\n0 1 5\n", r"Row index out of bounds \('0 1 5'\).*1 <= ROW <= 2"),
        (MTX + "2 2 1\n1 3 5\n", r"Column index out of bounds \('1 3 5'\)"),
        (MTX + "2 2 1\n4294967297 1 5\n", "Integer out of range"),
        (MTX + "2 2 1\n1 x 5\n", "Invalid integer"),
        (MTX + "2 2 1\n1 1 five\n", "Invalid floating"),
        (MTX + "2 2 1\n2 1 nan\n", r"row 1, column 0\), counted from 0, is nan"),
        (MTX + "2 2 1\n1 2 -inf\n", "-inf"),
        (MTX + "2 2 1\n1 2 1e400\n", "inf"),
        (MTX + "1 1 2\n1 1 1e308\n1 1 1e308\n", "inf"),
        ("%%MatrixMarket vector coordinate real general\n5 1\n1 3\n", "Vector"),
        ("%%MatrixMarket matrix coordinate real symmetric\n2 3 1\n1 1 5\n", "square"),
        ("%%MatrixMarket matrix coordinate real symmetric\n2 2 2\n1 2 3\n2 1 3\n", "both sides"),
        ("%%MatrixMarket matrix coordinate integer general\n1 1 1\n1 1 99999999999999999999\n", "out of range"),
        ("%%MatrixMarket matrix array real general\n2 2\n1\n2\n3.0\n", "Truncated"),
    ],
)
def test_mtx_refused(write: Write, text: str, says: str) -> None:
    for name in ("a.mtx", "a.mtx.gz"):
        message = error(write(name, text))
        assert re.search(says, message), message


@pytest.mark.parametrize(
    "text",
    [
        MTX + "10 10 100000000000\n1 1 1\n",
        MTX + "100000000000 100000000000 1\n1 1 1\n",
        MTX + "2 100000000000 1\n1 1 1\n",
        "%%MatrixMarket matrix array real general\n400000 400000\n1\n",
        "%%MatrixMarket matrix array real general\n4000000000 4000000000\n1\n",
        "%%MatrixMarket matrix array real symmetric\n4000000 4000000\n1\n",
        "%%MatrixMarket matrix coordinate pattern symmetric\n9 9 100000000000\n1 1\n",
    ],
)
@pytest.mark.parametrize("name", ["a.mtx", "a.mtx.gz"])
def test_mtx_lying_header_allocates_nothing(write: Write, name: str, text: str) -> None:
    path = write(name, text)
    assert peak_bytes(lambda: error(path)) < 8 << 20


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.99])
def test_truncated_files(tmp_path: Path, random_matrix: sp.csr_array, keep: float) -> None:
    out = io.BytesIO()
    scipy.io.mmwrite(out, random_matrix)
    for name, data in {"a.mtx": out.getvalue(), "a.mtx.gz": gzip.compress(out.getvalue())}.items():
        (tmp_path / name).write_bytes(data[: int(keep * len(data))])
        error(str(tmp_path / name))


def test_corrupt_gzip(tmp_path: Path) -> None:
    path = tmp_path / "a.mtx.gz"
    whole = gzip.compress((MTX + "2 2 1\n1 1 1\n" * 50).encode())
    for data in (b"plain text", b"\x1f\x8b", whole[:-5], whole[:20] + b"\xff" * 9 + whole[29:]):
        path.write_bytes(data)
        assert "gzip" in error(str(path))
