"""Layouts that `auto` found, kept in the user's cache folder under what they were found for."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from scipy.sparse import csr_array

from sparsecomm import __version__
from sparsecomm.errors import InputError
from sparsecomm.io.fingerprint import matrix_fingerprint
from sparsecomm.layout import Layouts
from sparsecomm.partition.libraries import LIBRARIES
from sparsecomm.partition.request import Request
from sparsecomm.store import load_layouts, new_directory, read_header, save_layouts, write_header
from sparsecomm.topology import Topology

KIND: Final = "sparsecomm.partition-cache"
VERSION: Final = 1
_NEEDED: Final = {"matrix": dict, "num_ranks": int}
_MAX_ENTRIES: Final = 256


def cache_folder() -> Path:
    """Return where layouts are kept: `$XDG_CACHE_HOME/sparsecomm/partitions`, by default under `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base, "sparsecomm", "partitions")


def load_cached(matrix: csr_array[Any], topology: Topology, request: Request) -> Layouts | None:
    """Return the layouts found before for the same structure, machine, limits and libraries; None if there are none."""
    path = cache_folder() / _key(matrix, topology, request)
    try:
        layouts = load_layouts(path, read_header(path, KIND, (VERSION,), _NEEDED))
    except InputError:
        return None
    fits = (layouts.rows.num_rows, layouts.cols.num_rows) == matrix.shape
    return layouts if fits and layouts.rows.num_ranks == topology.num_ranks else None


def save_cached(matrix: csr_array[Any], topology: Topology, request: Request, layouts: Layouts) -> None:
    """Keep `layouts`; a folder that cannot be written is no reason to fail."""
    folder = cache_folder()
    described = {"name": "", "rows": matrix.shape[0], "cols": matrix.shape[1], "nnz": int(matrix.nnz)}
    header = {
        "matrix": {**described, "fingerprint": matrix_fingerprint(matrix)},
        "num_ranks": topology.num_ranks,
    }
    try:
        with new_directory(folder / _key(matrix, topology, request), KIND) as path:
            save_layouts(path, layouts)
            write_header(path, KIND, VERSION, header)
    except InputError:
        return
    _forget_oldest(folder)


def _key(matrix: csr_array[Any], topology: Topology, request: Request) -> str:
    facts = {
        "matrix": matrix_fingerprint(matrix),
        "topology": topology.to_dict() | {"name": ""},
        "request": asdict(replace(request, timeout_s=0.0)),
        "libraries": [library.method for library in LIBRARIES if library.installed()],
        "version": __version__,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _forget_oldest(folder: Path) -> None:
    entries = sorted((path for path in folder.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    for path in entries[:-_MAX_ENTRIES]:
        shutil.rmtree(path, ignore_errors=True)
