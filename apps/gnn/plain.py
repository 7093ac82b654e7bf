"""Data sets of plain arrays: one `.npz`, or an edge list with `.npy` files beside it."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from sparsecomm.apps.gnn.dataset import Dataset, are_counts, make_dataset
from sparsecomm.errors import InputError
from sparsecomm.io.matrix import read_matrix
from sparsecomm.typing import Bools, IntGlobal

Arrays = Mapping[str, npt.NDArray[Any]]
_SPLITS = ("train", "val", "test")
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, OverflowError, ValueError, SyntaxError, TypeError)


def read_plain(path: Path, seed: int) -> Dataset:
    """Read `adj_indptr, adj_indices, x_indptr, x_indices, x_data, x_shape, y` and `{train,val,test}_masks` if there.

    Args:
        path: the .npz.
        seed: of splits, where the file has none.

    Raises:
        InputError: an array is missing, damaged, or does not fit the others.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except _BROKEN as err:
        raise InputError(f"is not a sound .npz of arrays ({err}); copy it again") from err
    needed = ("adj_indptr", "adj_indices", "x_indptr", "x_indices", "x_data", "x_shape", "y")
    missing = [name for name in needed if name not in arrays]
    if missing:
        raise InputError(f"lacks {', '.join(missing)}; expected {', '.join(needed)}")
    if arrays["x_shape"].shape != (2,):
        raise InputError(f"x_shape must be two numbers, not an array of shape {arrays['x_shape'].shape}")
    shape = int(arrays["x_shape"][0]), int(arrays["x_shape"][1])
    features = _csr(arrays["x_data"], arrays["x_indices"], arrays["x_indptr"], shape, "x")
    indptr, indices = arrays["adj_indptr"], arrays["adj_indices"]
    ones = np.ones(indices.shape, dtype=np.float32)
    adjacency = _csr(ones, indices, indptr, (shape[0], shape[0]), "adj")
    masks = None
    if all(f"{name}_masks" in arrays for name in _SPLITS):
        train, val, test = (np.atleast_2d(arrays[f"{name}_masks"]).astype(bool) for name in _SPLITS)
        masks = (train, val, test)
    return make_dataset(
        path.stem, _ends(adjacency), features, arrays["y"], masks, counts=are_counts(features), seed=seed
    )


def is_matrix(path: Path) -> bool:
    """Say whether an .npz is a matrix as `scipy.sparse.save_npz` writes it: edges alone."""
    try:
        with zipfile.ZipFile(path) as archive:
            return "format.npy" in archive.namelist()
    except _BROKEN:
        return False


def read_edge_list(path: Path, seed: int) -> Dataset:
    """Read an edge list (any matrix file) and, beside it, `STEM.features.npy`, `STEM.labels.npy`, `STEM.train.npy` ...

    Args:
        path: the edge list; STEM is its name without suffixes.
        seed: of splits, where there are no masks.

    Raises:
        InputError: a file is missing, damaged, or does not fit the others.
    """
    stem = path.name.split(".")[0]
    adjacency = read_matrix(str(path))
    features, labels = (_npy(path.with_name(f"{stem}.{name}.npy")) for name in ("features", "labels"))
    if features.ndim != 2 or features.dtype.kind not in "iufb":
        raise InputError(f"{stem}.features.npy must be a table of numbers, not {features.dtype} {features.shape}")
    files = [path.with_name(f"{stem}.{name}.npy") for name in _SPLITS]
    masks: tuple[Bools, Bools, Bools] | None = None
    if all(file.exists() for file in files):
        train, val, test = (np.atleast_2d(_npy(file)).astype(bool) for file in files)
        masks = (train, val, test)
    table = csr_array(features.astype(np.float32))
    return make_dataset(stem, _ends(adjacency), table, labels, masks, counts=False, seed=seed)


def _npy(path: Path) -> npt.NDArray[Any]:
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except FileNotFoundError:
        raise InputError(f"needs {path.name} beside it") from None
    except _BROKEN as err:
        raise InputError(f"{path.name} is not a sound .npy array ({err}); write it with numpy.save") from err


def _csr(data: Any, indices: Any, indptr: Any, shape: tuple[int, int], name: str) -> csr_array[Any]:
    flat = all(part.ndim == 1 for part in (data, indices, indptr))
    if not flat or data.dtype.kind not in "iuf" or indices.dtype.kind not in "iu" or indptr.dtype.kind not in "iu":
        raise InputError(f"{name}_data, {name}_indices and {name}_indptr must be plain arrays of numbers")
    if indptr.shape != (shape[0] + 1,) or indices.shape != data.shape or indptr[0] != 0 or indptr[-1] != data.size:
        raise InputError(f"{name}_indptr, {name}_indices and {name}_shape do not fit each other")
    if (np.diff(indptr.astype(np.int64)) < 0).any():
        raise InputError(f"{name}_indptr must never fall")
    if indices.size and (indices.min() < 0 or indices.max() >= shape[1]):
        raise InputError(f"{name}_indices must lie in 0 .. {shape[1] - 1}")
    return csr_array((data.astype(np.float32), indices.astype(np.int64), indptr.astype(np.int64)), shape=shape)


def _ends(adjacency: csr_array[Any]) -> tuple[IntGlobal, IntGlobal]:
    heads = np.repeat(np.arange(adjacency.shape[0], dtype=np.int64), np.diff(adjacency.indptr))
    return heads, adjacency.indices.astype(np.int64)
