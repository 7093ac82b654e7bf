"""scipy .npz files: what is read, and what each kind of broken file is answered with."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from sparsecomm.errors import InputError
from sparsecomm.io import read_matrix
from tests.read_files import Write, assert_equal, error, peak_bytes


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
