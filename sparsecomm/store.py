"""Directories of .npy arrays with a JSON header: written beside, then renamed; read by memory map, never by pickle.

header.json                 format, version, what it was made for
rows.offsets.npy, ...       layouts
rank_000000/*.npy           the shard of each rank
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsecomm.errors import InputError
from sparsecomm.layout import Layout, Layouts

HEADER = "header.json"
Header = dict[str, Any]


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Give a folder to fill that becomes `path` at the end, or vanishes if the filling fails.

    Raises:
        InputError: `path` exists and is not a directory that this library wrote.
    """
    if path.exists() and not (path / HEADER).is_file():
        raise InputError(f"{path} exists and was not written by sparsecomm; choose another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    beside.mkdir()
    try:
        yield beside
        if path.exists():
            shutil.rmtree(path)
        beside.rename(path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def write_header(folder: Path, kind: str, version: int, header: Header) -> None:
    """Write `header` with its format."""
    text = json.dumps({"format": kind, "version": version, **header}, indent=1)
    (folder / HEADER).write_text(text + "\n")


def read_header(folder: Path, kind: str, versions: tuple[int, ...], needed: tuple[str, ...] = ()) -> Header:
    """Read the header of a directory of format `kind`.

    Raises:
        InputError: no such directory, another format, a version that this library does not read, or an entry of
            `needed` is missing.
    """
    try:
        header = json.loads((folder / HEADER).read_text())
    except FileNotFoundError:
        raise InputError(f"{folder} is not a {kind} directory: it has no {HEADER}") from None
    except (OSError, ValueError) as err:
        raise InputError(f"{folder / HEADER} cannot be read: {err}") from err
    if not isinstance(header, dict) or header.get("format") != kind:
        found = header.get("format") if isinstance(header, dict) else type(header).__name__
        raise InputError(f"{folder} is a {found} directory, but a {kind} directory is needed")
    if header.get("version") not in versions:
        wanted = " or ".join(map(str, versions))
        raise InputError(f"{folder} has version {header.get('version')}, but this library reads {wanted}; make it anew")
    missing = [name for name in needed if name not in header]
    if missing:
        raise InputError(f"{folder / HEADER} lacks {', '.join(missing)}; make the directory anew")
    return header


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
    except FileNotFoundError:
        raise InputError(f"{path} is missing; the directory is incomplete, make it anew") from None
    except (OSError, ValueError) as err:
        raise InputError(f"{path} cannot be read: {err}; make the directory anew") from err


def _map(path: Path) -> npt.NDArray[Any]:
    """Map a .npy file; one without entries cannot be mapped and is read."""
    try:
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:
        array = np.load(path, allow_pickle=False)
        if array.size:
            raise
    return array


def save_layouts(folder: Path, layouts: Layouts) -> None:
    """Write who owns rows and columns, once where they are the same object."""
    for name, layout in (("rows", layouts.rows), ("cols", layouts.cols)):
        if name == "cols" and layouts.cols is layouts.rows:
            continue
        arrays = {"offsets": layout.offsets}
        if layout.old_to_new is not None:
            arrays["old_to_new"] = layout.old_to_new
        save_arrays(folder, name, arrays)


def load_layouts(folder: Path) -> Layouts:
    """Read what `save_layouts` wrote.

    Raises:
        InputError: a file is missing, or the layout is not one.
    """
    rows = _load_layout(folder, "rows")
    return Layouts(rows, _load_layout(folder, "cols") if (folder / "cols.offsets.npy").exists() else rows)


def _load_layout(folder: Path, name: str) -> Layout:
    permuted = (folder / f"{name}.old_to_new.npy").exists()
    try:
        return Layout(load_array(folder, name, "offsets"), load_array(folder, name, "old_to_new") if permuted else None)
    except InputError as err:
        raise InputError(f"{folder}: {err}") from err
