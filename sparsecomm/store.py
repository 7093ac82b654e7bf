"""Directories of .npy arrays with a JSON header: written beside, then renamed; read by memory map, never by pickle.

header.json                 format, version, what it was made for
rows.offsets.npy, ...       layouts
rank_000000/*.npy           the shard of each rank
"""

from __future__ import annotations

import ast
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from sparsecomm.errors import InputError
from sparsecomm.layout import Layout, Layouts

HEADER = "header.json"
Header = dict[str, Any]
_MADE_BY: Final = {
    "sparsecomm.product": "a plan directory (made by `sparsecomm plan -o DIR`)",
    "sparsecomm.partition": "a partition directory (made by `sparsecomm partition -o DIR`)",
    "sparsecomm.profile": "a profile directory (made by `sparsecomm spmm --profile DIR`)",
    "sparsecomm.graph": "a graph directory (made by `sparsecomm gnn -o DIR`)",
}
# What numpy raises on a .npy file that is not one: its header is a Python literal.
_BROKEN: Final = (EOFError, LookupError, OSError, OverflowError, RecursionError, SyntaxError, TypeError, ValueError)
# Python 3.11 counts the depth of what it parses for all threads together, and ranks may be threads.
_PARSING: Final = Lock()


@contextmanager
def new_directory(path: Path, kind: str) -> Iterator[Path]:
    """Give a folder to fill that becomes `path` at the end, or vanishes if the filling fails.

    Raises:
        InputError: `path` cannot be written, or exists and is not a directory of format `kind`.
    """
    check_replaceable(path, kind)
    whole = Path(os.path.abspath(path))
    beside = whole.with_name(f".{whole.name}.{os.getpid()}.tmp")
    try:
        whole.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        yield beside
        _put_in_place(beside, whole)
    except OSError as err:
        raise InputError(f"{path} cannot be written: {err.strerror or err}; choose another place") from err
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def check_replaceable(path: Path, kind: str) -> None:
    """Refuse a path where there is something else than a directory of format `kind`.

    Raises:
        InputError: with what is there.
    """
    if not os.path.lexists(path):
        return
    found = format_of(path)
    if found != kind:
        what = f"is a {found} directory" if str(found).startswith("sparsecomm.") else "was not written by sparsecomm"
        raise InputError(f"{path} exists and {what}; choose another name")


def format_of(path: Path) -> str | None:
    """Return the format that the header of a directory names; None where there is none."""
    try:
        header = json.loads((path / HEADER).read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return header.get("format") if isinstance(header, dict) else None


def _put_in_place(beside: Path, path: Path) -> None:
    """Rename `beside` to `path`; what was there is moved away first and removed last."""
    if not os.path.lexists(path):
        beside.rename(path)
        return
    old = beside.with_suffix(".old")
    path.rename(old)
    try:
        beside.rename(path)
    except OSError:
        old.rename(path)
        raise
    if old.is_symlink():
        old.unlink()
    else:
        shutil.rmtree(old, ignore_errors=True)


def write_header(folder: Path, kind: str, version: int, header: Header) -> None:
    """Write `header` with its format, beside and then renamed."""
    text = json.dumps({"format": kind, "version": version, **header}, indent=1)
    beside = folder / f".{HEADER}.{os.getpid()}.tmp"
    beside.write_text(text + "\n")
    beside.replace(folder / HEADER)


def _described(kind: str) -> str:
    return _MADE_BY.get(kind, f"a {kind} directory")


def read_header(folder: Path, kind: str, versions: tuple[int, ...], needed: Mapping[str, type]) -> Header:
    """Read the header of a directory of format `kind`.

    Args:
        folder: the directory.
        kind: its format.
        versions: of the format that this library reads.
        needed: entries that the header must have, and of which type.

    Raises:
        InputError: no such directory, another format, a version that this library does not read, or an entry of
            `needed` is missing or of another type.
    """
    try:
        header = json.loads((folder / HEADER).read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{folder} is not {_described(kind)}: it has no {HEADER}") from None
    except (OSError, ValueError, RecursionError) as err:
        raise InputError(f"{folder / HEADER} cannot be read: {err}; make the directory anew") from err
    if not isinstance(header, dict) or header.get("format") != kind:
        found = header.get("format") if isinstance(header, dict) else type(header).__name__
        raise InputError(f"{folder} has format {found}, but {kind} is needed; give {_described(kind)}")
    if header.get("version") not in versions:
        wanted = " or ".join(map(str, versions))
        raise InputError(f"{folder} has version {header.get('version')}, but this library reads {wanted}; make it anew")
    missing = [name for name, needs in needed.items() if type(header.get(name)) is not needs]
    if missing:
        raise InputError(f"{folder / HEADER} lacks {', '.join(missing)}; make the directory anew")
    if "matrix" in needed:
        _check_entries(folder / HEADER, header)
    return header


def _check_entries(path: Path, header: Header) -> None:
    """Refuse a number of ranks, or a description of a matrix, that cannot be."""
    matrix = header["matrix"]
    kinds = {"name": str, "rows": int, "cols": int, "nnz": int, "fingerprint": str}
    if matrix.keys() != kinds.keys() or any(type(matrix[name]) is not kind for name, kind in kinds.items()):
        raise InputError(f"{path} does not describe a matrix by {', '.join(kinds)}; make the directory anew")
    if header["num_ranks"] < 1:
        raise InputError(f"{path} is for {header['num_ranks']} ranks; make the directory anew")


def rank_folder(folder: Path, rank: int) -> Path:
    """Return the folder of one rank's shard."""
    return folder / f"rank_{rank:06d}"


def save_arrays(folder: Path, prefix: str, arrays: dict[str, npt.NDArray[Any]]) -> None:
    """Write arrays as `PREFIX.NAME.npy`."""
    folder.mkdir(exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{prefix}.{name}.npy", array, allow_pickle=False)


def load_array(folder: Path, prefix: str, name: str) -> npt.NDArray[Any]:
    """Map an array that `save_arrays` wrote.

    Raises:
        InputError: the file is missing, truncated, or no plain array.
    """
    path = folder / f"{prefix}.{name}.npy"
    try:
        return _map(path)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path} is missing; the directory is incomplete, make it anew") from None
    except _BROKEN as err:
        raise InputError(f"{path} cannot be read: {err}; make the directory anew") from err


def load_indices(folder: Path, prefix: str, name: str, ndim: int = 1) -> npt.NDArray[Any]:
    """Map an array of signed integers that `save_arrays` wrote.

    Raises:
        InputError: the file is missing or truncated, or holds something else.
    """
    array = load_array(folder, prefix, name)
    if array.dtype.kind != "i" or array.ndim != ndim:
        raise InputError(
            f"{folder / f'{prefix}.{name}.npy'} holds {array.dtype} in {array.ndim} dimensions, not signed integers in"
            f" {ndim}; make the directory anew"
        )
    return array


def _map(path: Path) -> npt.NDArray[Any]:
    """Map a .npy file; one without entries cannot be mapped."""
    with path.open("rb") as file:
        with _PARSING:
            shape, fortran_order, dtype = _read_head(file)
        needed = file.tell() + math.prod(shape) * dtype.itemsize
        found = os.fstat(file.fileno()).st_size
        if needed > found:
            raise ValueError(f"{dtype} of shape {shape} need {needed} bytes, and it has {found}")
        if 0 in shape:
            return np.empty(shape, dtype=dtype)
        return np.memmap(file, dtype, "r", file.tell(), shape, "F" if fortran_order else "C")


def _read_head(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"it is version {version} of the format, not (1, 0)")
    start = file.tell()
    # numpy mends headers that are no literals, with a warning; none of ours needs that.
    header = ast.literal_eval(file.read(int.from_bytes(file.read(2), "little")).decode("latin1"))
    if not re.fullmatch("[<>|=]?[iufc][0-9]+", str(header["descr"])):  # of old names of types numpy warns, too
        raise ValueError(f"it holds {header['descr']!r:.40}, not numbers")
    file.seek(start)
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
    if min(shape, default=0) < 0:
        raise ValueError(f"its shape is {shape}")
    return shape, fortran_order, dtype


def save_layouts(folder: Path, layouts: Layouts) -> None:
    """Write who owns rows and columns, once where they are the same object."""
    for name, layout in (("rows", layouts.rows), ("cols", layouts.cols)):
        if name == "cols" and layouts.cols is layouts.rows:
            continue
        arrays = {"offsets": layout.offsets}
        if layout.old_to_new is not None:
            arrays["old_to_new"] = layout.old_to_new
        save_arrays(folder, name, arrays)


def load_layouts(folder: Path, header: Header) -> Layouts:
    """Read what `save_layouts` wrote.

    Raises:
        InputError: a file is missing, or the layout is not one or not that of the header's matrix and ranks.
    """
    rows = _load_layout(folder, "rows")
    layouts = Layouts(rows, _load_layout(folder, "cols") if (folder / "cols.offsets.npy").exists() else rows)
    for side, layout in zip(("rows", "cols"), layouts, strict=True):
        found, wanted = (layout.num_rows, layout.num_ranks), (header["matrix"][side], header["num_ranks"])
        if found != wanted:
            raise InputError(
                f"{folder}: the layout of {side} has {found[0]} on {found[1]} ranks, but the header says {wanted[0]} "
                f"on {wanted[1]}; make the directory anew"
            )
    return layouts


def _load_layout(folder: Path, name: str) -> Layout:
    permuted = (folder / f"{name}.old_to_new.npy").exists()
    try:
        old_to_new = load_indices(folder, name, "old_to_new") if permuted else None
        return Layout(load_indices(folder, name, "offsets"), old_to_new)
    except InputError as err:
        raise InputError(f"{folder}: {err}") from err
