"""Sparse matrices in scipy's `.npz` format, read member by member so that no header is believed unchecked."""

from __future__ import annotations

import ast
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csc_array, csr_array

from sparsecomm.errors import InputError
from sparsecomm.io.csr import Indices, Matrix, floating, from_entries
from sparsecomm.io.limits import check_memory, check_regular, check_shape

_DEFLATE_RATIO = 1032  # the most deflate can shrink (zlib, "Technical Details")
_MEMBERS = {
    "csr": ("data", "indices", "indptr"),
    "csc": ("data", "indices", "indptr"),
    "coo": ("data", "row", "col"),
}
_CURE = "write it with scipy.sparse.save_npz(file, A.tocsr())"
# What zipfile, zlib and numpy raise on bytes that are not what they should be (RuntimeError: an encrypted member).
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    SyntaxError,
    TypeError,
    KeyError,
    IndexError,
)


def read_npz(path: Path, *, one_based: bool = False) -> Matrix:
    """Read a matrix that scipy.sparse.save_npz wrote as csr, csc or coo; nothing is ever unpickled.

    Args:
        path: the file.
        one_based: not used, the format counts from 0 by definition.
    """
    file_bytes = check_regular(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _Archive(archive, file_bytes).matrix()
    except InputError:
        raise
    except _BROKEN as err:
        raise InputError(f"is not a sound .npz file ({err or type(err).__name__}); copy it again or {_CURE}") from err


class _Archive:
    """The arrays of an open .npz file.

    Args:
        archive: the open zip file.
        file_bytes: its size on disk.
    """

    def __init__(self, archive: zipfile.ZipFile, file_bytes: int) -> None:
        self._archive = archive
        self._file_bytes = file_bytes
        self._members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}

    def matrix(self) -> Matrix:
        kind = self._format()
        names = _MEMBERS[kind]
        missing = [name for name in ("shape", *names) if name not in self._members]
        if missing:
            raise InputError(f"is a {kind} matrix without {', '.join(missing)}; {_CURE}")
        check_memory(2 * sum(self._members[name].file_size for name in names))
        rows, cols = self._shape(sum(self._members[name].file_size for name in names))
        data, first, second = (self.array(name) for name in names)
        if kind == "coo":
            return _from_coo(data, first, second, (rows, cols))
        return _from_compressed(kind, data, first, second, (rows, cols))

    def array(self, name: str) -> npt.NDArray[Any]:
        """Return member `name`; its header has been held against its size, and that against the file's."""
        info = self._members[name]
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError(f"packs {name} by a method that numpy does not use; {_CURE}")
        if info.compress_size > self._file_bytes or info.file_size > _DEFLATE_RATIO * (info.compress_size + 1):
            raise InputError(
                f"says {name} unpacks to {info.file_size} bytes, more than {info.compress_size} packed bytes of a"
                f" file of {self._file_bytes} can hold; copy it again or {_CURE}"
            )
        self._check_npy(name, info)
        with self._archive.open(info) as stream:
            array: npt.NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
            if stream.read(1):  # reading to the end is also what makes zipfile compare the checksum
                raise InputError(f"has bytes after the end of {name}; {_CURE}")
        return array

    def _check_npy(self, name: str, info: zipfile.ZipInfo) -> None:
        with self._archive.open(info) as stream:
            version = np.lib.format.read_magic(stream)
            length = int.from_bytes(stream.read(2 if version == (1, 0) else 4), "little")
            header = ast.literal_eval(stream.read(min(length, 10_000)).decode("latin1"))
            if str(header["descr"]).lstrip("<>|=").startswith("a"):  # of this name of a text numpy warns
                raise InputError(f"holds {header['descr']} in {name}, which no numpy of today writes; {_CURE}")
            dtype, shape = np.dtype(header["descr"]), header["shape"]
            if dtype.hasobject:
                raise InputError(f"holds Python objects in {name}, which are never unpickled; {_CURE}")
            expected = stream.tell() + dtype.itemsize * _product(shape)
        if info.file_size != expected:
            raise InputError(
                f"says {name} is {dtype} of shape {shape}, {expected} bytes, but it has {info.file_size};"
                f" copy it again or {_CURE}"
            )

    def _format(self) -> str:
        if "format" not in self._members:
            found = repr(sorted(self._members))[:120]
            raise InputError(f"is not a sparse matrix: it holds {found} and no 'format'; {_CURE}")
        stored = self.array("format")
        kind = stored.item() if stored.size == 1 else None
        kind = kind.decode("ascii", "replace") if isinstance(kind, bytes) else kind
        if kind not in _MEMBERS:
            raise InputError(f"is in sparse format {str(kind)[:20]!r}; expected {', '.join(_MEMBERS)}: {_CURE}")
        return str(kind)

    def _shape(self, num_bytes: int) -> tuple[int, int]:
        shape = self.array("shape")
        if shape.shape != (2,) or shape.dtype.kind not in "iu":
            # Not its entries: an array of shape (10**12, 0) takes no bytes, but 10**12 lists.
            raise InputError(f"has a shape of {shape.dtype} in an array of {shape.shape}; expected two whole numbers")
        rows, cols = int(shape[0]), int(shape[1])
        check_shape(rows, cols, num_bytes)
        return rows, cols


def _product(shape: tuple[int, ...]) -> int:
    """Return the number of items of `shape` without wrapping."""
    product = 1
    for size in shape:
        product *= int(size)
    return product


def _from_coo(data: npt.NDArray[Any], row: Indices, col: Indices, shape: tuple[int, int]) -> Matrix:
    _check_lengths(data=data, row=row, col=col)
    return from_entries(_indices("row", row, shape[0]), _indices("col", col, shape[1]), data, shape)


def _from_compressed(
    kind: str, data: npt.NDArray[Any], indices: Indices, indptr: Indices, shape: tuple[int, int]
) -> Matrix:
    major, minor = shape if kind == "csr" else shape[::-1]
    _check_lengths(data=data, indices=indices)
    indices = _indices("indices", indices, minor)
    indptr = _indices("indptr", indptr, data.size + 1)
    if indptr.shape != (major + 1,) or indptr[0] != 0 or indptr[-1] != data.size or (np.diff(indptr) < 0).any():
        raise InputError(
            f"has an indptr of shape {indptr.shape} that does not rise from 0 to {data.size}, the number of entries,"
            f" in {major} steps; {_CURE}"
        )
    if kind == "csr":
        return csr_array((floating(data), indices, indptr), shape=shape)
    by_column: csc_array[Any] = csc_array((floating(data), indices, indptr), shape=shape)
    return by_column.tocsr()


def _check_lengths(**arrays: npt.NDArray[Any]) -> None:
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
        raise InputError(f"has arrays of shapes {shapes}; expected one length for all: {_CURE}")


def _indices(name: str, indices: Indices, limit: int) -> Indices:
    """Return `indices` as int32 or int64, after a check that they are 0 .. limit - 1."""
    if indices.dtype.kind not in "iu" or indices.ndim != 1:
        raise InputError(
            f"has {name} of type {indices.dtype} and {indices.ndim} dimensions; expected integers: {_CURE}"
        )
    if indices.size:
        low, high = int(indices.min()), int(indices.max())
        if low < 0 or high >= limit:
            raise InputError(f"has {name} from {low} to {high}; expected 0 to {limit - 1}: {_CURE}")
    return indices.astype(
        np.int32 if indices.dtype.itemsize == 4 and indices.dtype.kind == "i" else np.int64, copy=False
    )
