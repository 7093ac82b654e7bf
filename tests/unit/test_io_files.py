"""Readers of files: what each format means, and what each kind of broken file is answered with."""

from __future__ import annotations

import gzip
import io
import os
import re
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

from sparsecomm.errors import InputError
from sparsecomm.io import read_matrix
from sparsecomm.io.matrix import register_reader
from sparsecomm.io.mtx import read_mtx

MTX = "%%MatrixMarket matrix coordinate real general\n"


class Write(Protocol):
    def __call__(self, name: str, content: str | bytes) -> str: ...


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file, gzipped if its name says so, and return its path."""

    def write(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        data = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return str(path)

    return write


def check_canonical(matrix: Any) -> None:
    assert isinstance(matrix, sp.csr_array)
    assert matrix.has_canonical_format
    assert sp.csr_array((matrix.data, matrix.indices, matrix.indptr), shape=matrix.shape).has_canonical_format
    assert matrix.indices.dtype == matrix.indptr.dtype == np.int32
    assert np.isfinite(matrix.data).all()


def assert_equal(matrix: Any, expected: Any) -> None:
    """Same shape, same places (explicit zeros are places), same values."""
    check_canonical(matrix)
    expected = sp.csr_array(expected)
    expected.sum_duplicates()
    assert matrix.shape == expected.shape
    np.testing.assert_array_equal(matrix.indptr, expected.indptr)
    np.testing.assert_array_equal(matrix.indices, expected.indices)
    np.testing.assert_array_equal(matrix.data, expected.data)


def error(path: str, **options: Any) -> str:
    """Return the message of the InputError that reading `path` raises; it names the file and is short."""
    with pytest.raises(InputError) as caught:
        read_matrix(path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert len(message) - len(path) < 400
    assert "\n" not in message.removeprefix(path)
    return message


def peak_bytes(act: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture
def random_matrix() -> sp.csr_array:
    return sp.random_array((30, 20), density=0.2, rng=np.random.default_rng(7), format="csr")


# --- the dispatcher


def test_names_what_it_knows_when_it_knows_nothing() -> None:
    message = error("matrix.xlsx")
    assert ".mtx.gz" in message
    assert ".npz" in message
    assert "rmat:SCALE[:EDGEFACTOR[:SEED]]" in message


@pytest.mark.parametrize("name", ["no.mtx", "no.mtx.gz", "no.npz", "no.graph", "no.txt", "no/such/dir/no.edges"])
def test_missing_file(name: str) -> None:
    assert "does not exist" in error(name)


def test_folder_given_as_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "folder.mtx"
    folder.mkdir()
    assert "is a directory" in error(str(folder))
    assert "is a directory" in error(str(tmp_path))


def test_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mtx")
    assert "not a regular file" in error(str(tmp_path / "pipe.mtx"))


def test_unreadable_file(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)  # file modes do not stop root
    assert "Permission denied" in error(write("a.mtx", MTX + "1 1 1\n1 1 1\n"))


@pytest.mark.parametrize("name", ["a\0.mtx", "a" * 5000 + ".mtx", "\udcff.mtx", ""])
def test_impossible_names(name: str) -> None:
    error(name)


@pytest.mark.parametrize("name", ["a.mtx", "a.npz", "a.graph", "a.txt", "a.tsv", "a.edges"])
def test_empty_file(write: Write, name: str) -> None:
    assert "empty" in error(write(name, b""))


@pytest.mark.parametrize("name", ["a.mtx.gz", "a.graph.gz", "a.txt.gz"])
def test_nothing_in_gzip(write: Write, name: str) -> None:
    error(write(name, b""))


@pytest.mark.parametrize("name", ["a.mtx", "a.graph", "a.txt"])
def test_binary_given_as_text(write: Write, name: str) -> None:
    assert "binary" in error(write(name, b"1 1\n\0\0\0"))


def test_more_than_memory_is_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparsecomm.io.limits.memory_limit", lambda: 1 << 20)
    text = MTX + "1 1 1\n" + "%" * 3_000_000
    assert "GiB" in error(write("a.mtx", text))
    assert "GiB" in error(write("a.mtx.gz", text))


def test_suffix_in_capitals_and_a_second_reader(write: Write) -> None:
    assert read_matrix(write("A.MTX", MTX + "1 1 1\n1 1 1\n")).nnz == 1
    with pytest.raises(ValueError, match="already"):
        register_reader(".mtx", read_mtx)


@pytest.mark.parametrize("dtype", [np.float32, "float64", np.complex64])
def test_dtype(write: Write, dtype: Any) -> None:
    matrix = read_matrix(write("a.mtx", MTX + "2 2 1\n1 2 0.1\n"), dtype=dtype)
    assert matrix.dtype == np.dtype(dtype)
    assert matrix[0, 1] == np.dtype(dtype).type(0.1)


def test_dtype_too_narrow(write: Write) -> None:
    assert "inf in float32" in error(write("a.mtx", MTX + "2 2 1\n1 2 1e300\n"), dtype=np.float32)
    text = "%%MatrixMarket matrix coordinate complex general\n1 1 1\n1 1 2 3\n"
    assert "complex" in error(write("b.mtx", text), dtype=np.float32)


# --- Matrix Market


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


# --- .npz


@pytest.mark.parametrize("kind", ["csr", "csc", "coo"])
@pytest.mark.parametrize("container", ["array", "matrix"])
@pytest.mark.parametrize("compressed", [True, False])
def test_npz_round_trip(
    tmp_path: Path, random_matrix: sp.csr_array, kind: str, container: str, compressed: bool
) -> None:
    stored = getattr(sp, f"{kind}_{container}")(random_matrix)
    sp.save_npz(tmp_path / "a.npz", stored, compressed=compressed)
    assert_equal(read_matrix(str(tmp_path / "a.npz")), random_matrix)


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        ("float32", "float32"),
        ("float64", "float64"),
        (">f8", "float64"),
        ("complex64", "complex64"),
        ("int8", "float64"),
        ("uint64", "float64"),
        ("bool", "float64"),
        ("longdouble", "float64"),
    ],
)
def test_npz_types(tmp_path: Path, stored: str, read: str) -> None:
    arrays = {"data": np.ones(2, stored), "indices": np.array([0, 2]), "indptr": np.array([0, 1, 2])}
    np.savez(tmp_path / "a.npz", format=b"csr", shape=(2, 3), **arrays)
    matrix = read_matrix(str(tmp_path / "a.npz"))
    assert matrix.dtype == np.dtype(read)
    np.testing.assert_array_equal(matrix.toarray(), [[1, 0, 0], [0, 0, 1]])


def test_npz_unsorted_with_duplicates_and_zeros(tmp_path: Path) -> None:
    arrays = {"data": np.array([100, 0, 100], np.int8), "indices": [2, 0, 2], "indptr": np.array([0, 3], np.uint16)}
    np.savez(tmp_path / "a.npz", format="csr", shape=(1, 3), **arrays)  # type: ignore[arg-type]
    assert_equal(read_matrix(str(tmp_path / "a.npz")), sp.csr_array(([0.0, 200.0], [0, 2], [0, 2]), shape=(1, 3)))


def bad_npz(change: dict[str, Any]) -> dict[str, Any]:
    arrays: dict[str, Any] = {
        "format": b"csr",
        "shape": (2, 3),
        "data": np.ones(3),
        "indices": np.array([0, 2, 1]),
        "indptr": np.array([0, 2, 3]),
    }
    return {name: array for name, array in (arrays | change).items() if array is not None}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": None}, "not a sparse matrix: it holds ['data', 'indices'"),
        ({"format": b"dia"}, "'dia'; expected csr, csc, coo"),
        ({"format": np.arange(3)}, "expected csr, csc, coo"),
        ({"indptr": None}, "without indptr"),
        ({"data": np.array([None] * 3)}, "never unpickled"),
        ({"shape": np.array([object(), 3])}, "never unpickled"),
        ({"data": np.array(["a"] * 3)}, "expected numbers"),
        ({"data": np.array([1, np.nan, 1])}, "nan"),
        ({"data": np.ones(4)}, "one length"),
        ({"data": np.ones((3, 1)), "indices": np.ones((3, 1), int)}, "one length"),
        ({"shape": (2, 3, 4)}, "two whole numbers"),
        ({"shape": (2.0, 3.0)}, "two whole numbers"),
        ({"shape": (0, 3), "indptr": np.array([0])}, "at least one row"),
        ({"shape": (2, -3)}, "at least one row"),
        ({"shape": (2, 10**12)}, "correct the header"),
        ({"shape": (10**12, 3)}, "correct the header"),
        ({"shape": (3, 3)}, "indptr"),
        ({"indptr": np.array([0, 4, 3])}, "indptr"),
        ({"indptr": np.array([1, 2, 3])}, "indptr"),
        ({"indptr": np.array([0, 2, 2])}, "indptr"),
        ({"indptr": np.array([0, -1, 3])}, "indptr"),
        ({"indptr": np.array([0.0, 2.0, 3.0])}, "integers"),
        ({"indptr": np.array(3)}, "indptr"),
        ({"indices": np.array([0, 3, 1])}, "indices from 0 to 3; expected 0 to 2"),
        ({"indices": np.array([0, -1, 1])}, "indices from -1"),
        ({"indices": np.array([0, 2**63, 1], np.uint64)}, "indices from 0 to 9223372036854775808"),
    ],
)
def test_npz_refused(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    np.savez(tmp_path / "a.npz", **bad_npz(change))
    message = error(str(tmp_path / "a.npz"))
    assert says in message


def test_npz_coo_out_of_range(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", format="coo", shape=(2, 2), data=[1.0], row=[2], col=[0])  # type: ignore[arg-type]
    assert "row from 2 to 2; expected 0 to 1" in error(str(tmp_path / "a.npz"))


def test_npz_that_is_no_zip(write: Write) -> None:
    assert "not a zip" in error(write("a.npz", b"PK\x03\x04 but then something else"))
    out = io.BytesIO()
    np.save(out, np.ones(3))
    assert "not a zip" in error(write("b.npz", out.getvalue()))


def test_npz_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, **bad_npz({"data": np.arange(3) + 0.5}))
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("data.npy")
    names = info.header_offset + 26  # the lengths of the name and of the extra field, two bytes each
    start = names + 4 + sum(int.from_bytes(whole[at : at + 2], "little") for at in (names, names + 2))
    for at in range(start, start + info.compress_size, 5):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        with pytest.raises(InputError):
            read_matrix(str(path))
    path.write_bytes(whole[: len(whole) // 2])
    assert "zip" in error(str(path))


def npy_claiming(shape: tuple[int, ...]) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return out.getvalue()


@pytest.mark.parametrize("shape", [(10**11,), (2**62, 4), (-5,), (-5, -5)])
def test_npz_lying_member_allocates_nothing(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **bad_npz({"data": None}))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("data.npy", npy_claiming(shape) + b"\0" * 24)
    message = ""

    def act() -> None:
        nonlocal message
        message = error(str(path))

    assert peak_bytes(act) < 8 << 20
    assert "says data is" in message


def test_npz_lying_zip_directory(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **bad_npz({"data": None}))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("data.npy", npy_claiming((3 * 10**8,)) + b"\0" * 24)
        real = archive.getinfo("data.npy").file_size
    lie = npy_claiming((3 * 10**8,))
    whole = path.read_bytes()
    at = whole.rindex(b"PK\x01\x02")  # the directory entry of data: its size, four bytes at 24
    size = (len(lie) + 24 * 10**8).to_bytes(4, "little")
    assert whole[at + 24 : at + 28] == real.to_bytes(4, "little")
    path.write_bytes(whole[: at + 24] + size + whole[at + 28 :])
    assert peak_bytes(lambda: error(str(path))) < 8 << 20


# --- METIS


@pytest.mark.parametrize(
    ("text", "dense"),
    [
        ("3 2\n2\n1 3\n2\n", [[0, 1, 0], [1, 0, 1], [0, 1, 0]]),
        ("% c\n3 1\n%c\n\n3\n% c\n2\n\n\n", [[0, 0, 0], [0, 0, 1], [0, 1, 0]]),
        ("3 1\n2\n1\n\n", [[0, 1, 0], [1, 0, 0], [0, 0, 0]]),
        ("3 1\n2\n1\n", [[0, 1, 0], [1, 0, 0], [0, 0, 0]]),
        ("2 1 1\n2 7\n1 0\n", [[0, 7], [0, 0]]),
        ("2 1 001\r\n 2 7\r\n1\t9\r\n", [[0, 7], [9, 0]]),
        ("2 1 10\n5 2\n6 1\n", [[0, 1], [1, 0]]),
        ("2 1 011 2\n5 5 2 3\n6 6 1 4\n", [[0, 3], [4, 0]]),
        ("2 1 100\n5 2\n6 1\n", [[0, 1], [1, 0]]),
        ("2 1 111 3\n9 5 5 5 2 3\n9 6 6 6 1 4", [[0, 3], [4, 0]]),
        ("1 0\n\n", [[0]]),
    ],
)
@pytest.mark.parametrize("name", ["a.graph", "a.graph.gz"])
def test_metis(write: Write, name: str, text: str, dense: list[list[int]]) -> None:
    matrix = read_matrix(write(name, text))
    check_canonical(matrix)
    np.testing.assert_array_equal(matrix.toarray(), dense)


def test_metis_keeps_a_weight_of_zero(write: Write) -> None:
    assert read_matrix(write("a.graph", "2 1 1\n2 7\n1 0\n")).nnz == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("\n", "METIS header"),
        ("3\n", "METIS header"),
        ("3 2 2\n", "METIS header"),
        ("a b\n", "METIS header"),
        ("0 0\n", "at least one row"),
        ("3 3\n2\n1 3\n2\n", "lists 4 neighbours but its header says 3 edges; expected 6"),
        ("3 1\n2\n1 3\n2\n", "expected 2"),
        ("2 1\n2\n0\n", "vertex 2 has neighbour 0; expected 1 to 2"),
        ("2 1\n3\n1\n", "vertex 1 has neighbour 3"),
        ("4 1\n2\n1\n", "has 2 lines after the header; expected 4"),
        ("2 2\n2\n1 2\n1\n", "has 3 lines after the header; expected 2"),
        ("2 1\n2\n1 x\n", "line 2 after the header (comments not counted) has 'x'"),
        ("2 1\n2\n-1\n", "has '-1'"),
        ("2 1\n2\n1.5\n", "has '.5'"),
        ("2 1\n2\n99999999999999999999\n", "at most 18 digits"),
        ("2 1 1\n2\n1 4\n", "vertex 1 has 1 numbers on its line"),
        ("2 1 10 3\n1 2\n1 1\n", "check FMT and NCON"),
        ("100000000000 1\n2\n1\n", "100000000000 x 100000000000"),
        ("9000000 1\n2\n1\n", "has 2 lines"),
    ],
)
def test_metis_refused(write: Write, text: str, says: str) -> None:
    path = write("a.graph", text)
    assert peak_bytes(lambda: error(path)) < 8 << 20
    assert says in error(path)


def test_metis_across_blocks(write: Write, monkeypatch: pytest.MonkeyPatch, random_matrix: sp.csr_array) -> None:
    half = sp.random_array((40, 40), density=0.2, rng=np.random.default_rng(3))
    graph = sp.csr_array(sp.triu(half, 1) + sp.triu(half, 1).T)
    graph.data[:] = 1.0
    lines = [f"40 {graph.nnz // 2}"]
    lines += [" ".join(str(u + 1) for u in graph.indices[slice(*graph.indptr[v : v + 2])]) for v in range(40)]
    monkeypatch.setattr("sparsecomm.io.text._CHUNK_BYTES", 17)
    assert_equal(read_matrix(write("a.graph", "\n".join(lines))), graph)


# --- edge lists


@pytest.mark.parametrize("name", ["a.txt", "a.tsv", "a.edges", "a.txt.gz", "a.tsv.gz", "a.edges.gz"])
def test_edges(write: Write, name: str) -> None:
    matrix = read_matrix(write(name, "# comment\n% another\n0 3\n\n2\t1\n0 3\n"))
    assert_equal(matrix, sp.coo_array(([2.0, 1.0], ([0, 2], [3, 1])), shape=(4, 4)))


def test_edges_with_values(write: Write) -> None:
    matrix = read_matrix(write("a.txt", "1 0 0\r\n0 1 -2.5e1\r\n  # end"))
    assert matrix.nnz == 2
    np.testing.assert_array_equal(matrix.toarray(), [[0, -25], [0, 0]])


def test_edges_one_based(write: Write) -> None:
    np.testing.assert_array_equal(read_matrix(write("a.txt", "1 2\n"), one_based=True).toarray(), [[0, 1], [0, 0]])
    assert "drop --one-based" in error(write("b.txt", "1 2\n0 1\n"), one_based=True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("\n \n", "no edges"),
        ("# only words\n", "no edges"),
        ("1\n", "line 1 is '1'; expected 2 columns"),
        ("# c\n0 1\n0 1 2\n", "line 3 is '0 1 2'; expected 2 columns"),
        ("0 1 2\n0 1\n", "line 2 is '0 1'; expected 3 columns"),
        ("0 1 2 3\n", "line 1 is '0 1 2 3'"),
        ("0,1\n", "line 1 is '0,1'"),
        ("0 1\n0 x\n", "line 2 is '0 x'"),
        ("0 1.5\n", "line 1 is '0 1.5'"),
        ("0 99999999999999999999\n", "line 1 is"),
        ("0 1 abc\n", "line 1 is '0 1 abc'"),
        ("0 1 nan\n", "is nan"),
        ("0 1 1e999\n", "is inf"),
        ("0 -1\n", "0 -> -1"),
        ("0 100000000000\n", "100000000001 x 100000000001"),
        ("0 9223372036854775807\n", ""),
        ("-9223372036854775808 0\n", ""),
    ],
)
@pytest.mark.parametrize("one_based", [False, True])
def test_edges_refused(write: Write, text: str, says: str, one_based: bool) -> None:
    path = write("a.txt", text)
    message = error(path, one_based=one_based)
    assert says in message or one_based


# --- real files

REAL = {
    "matrices/xenon1.mtx.gz": ((48_600, 48_600), 1_181_120),
    "matrices/c-62.mtx.gz": ((41_731, 41_731), 559_343),
    "matrices/cage10.mtx.gz": ((11_397, 11_397), 150_645),
    "matrices/bcsstk13.mtx.gz": ((2_003, 2_003), 83_883),
    "matrices/west0479.mtx.gz": ((479, 479), 1_910),
    "matrices/copter2.graph.gz": ((55_476, 55_476), 704_476),
    "matrices/mdual.graph.gz": ((258_569, 258_569), 1_026_264),
    "matrices/cnr-2000.npz": ((325_557, 325_557), 3_216_152),
    "matrices/ego-twitter.npz": ((81_306, 81_306), 2_684_606),
    "matrices/soc-slashdot0902.npz": ((82_168, 82_168), 1_086_763),
    "matrices/email-enron.npz": ((36_692, 36_692), 367_662),
    "matrices/gene_go_all.npz": ((77_614, 22_963), 2_114_381),
    "sparse_dnn/n1024-l1.mtx": ((1_024, 1_024), 32_768),
    "sparse_dnn/n1024-l6.mtx": ((1_024, 1_024), 32_768),
    "sparse_dnn/sparse-images-1024_subset.mtx": ((1_200, 1_024), 122_713),
    "sparse_dnn/neuron1024-l120-categories_subset.mtx": ((1_200, 1), 19),
    "pruned_dnn/squeezenet_conv1.npz": ((96, 147), 13_902),
}


@pytest.mark.parametrize("name", REAL)
def test_real_files(data_dir: Any, name: str) -> None:
    path = data_dir / name
    matrix = read_matrix(str(path))
    shape, nnz = REAL[name]
    check_canonical(matrix)
    assert matrix.shape == shape
    assert matrix.nnz == nnz
    if ".mtx" in name:
        assert_equal(matrix, scipy.io.mmread(path))
    elif name.endswith(".npz"):
        assert_equal(matrix, sp.load_npz(path))
    else:
        assert (matrix != matrix.T).nnz == 0


def test_real_npz_that_is_no_matrix(data_dir: Any) -> None:
    assert "holds ['adj_indices', 'adj_indptr'" in error(str(data_dir / "gnn/amazon_photo.npz"))
