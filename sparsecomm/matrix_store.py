"""Partition directories: a matrix in shards, one per rank, with the layouts it was cut by."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, vstack

from sparsecomm.errors import InputError
from sparsecomm.io.csr import canonical
from sparsecomm.layout import Layouts
from sparsecomm.store import (
    Header,
    load_array,
    load_indices,
    load_layouts,
    new_directory,
    rank_folder,
    read_header,
    save_arrays,
    save_layouts,
    write_header,
)

KIND: Final = "sparsecomm.partition"
VERSION: Final = 1
READS: Final = (1,)
_NEEDED: Final = {"matrix": dict, "topology": dict, "num_ranks": int, "method": str}


def renumber(matrix: csr_array[Any], layouts: Layouts) -> csr_array[Any]:
    """Return the matrix with its rows and columns in new numbering, columns ascending in every row."""
    if layouts.rows.old_to_new is not None:
        matrix = matrix[layouts.rows.new_to_old()]
    if layouts.cols.old_to_new is not None:
        indices = layouts.cols.old_to_new[matrix.indices].astype(matrix.indices.dtype)
        matrix = csr_array((matrix.data.copy(), indices, matrix.indptr), shape=matrix.shape)
        matrix.sort_indices()
    return matrix


def save_partition(path: Path, renumbered: csr_array[Any], layouts: Layouts, header: Header) -> None:
    """Write a renumbered matrix in one shard per rank.

    Args:
        path: the directory to make.
        renumbered: the whole matrix in new numbering.
        layouts: who owns rows and columns.
        header: `matrix`, `topology`, `num_ranks`, `method` and whatever else is worth keeping.

    Raises:
        InputError: `path` exists and is not a directory that this library wrote.
    """
    offsets = layouts.rows.offsets
    with new_directory(path, KIND) as folder:
        for rank in range(layouts.rows.num_ranks):
            save_shard(folder, rank, renumbered, offsets[rank], offsets[rank + 1])
        save_layouts(folder, layouts)
        write_header(folder, KIND, VERSION, header)


def save_shard(folder: Path, rank: int, matrix: csr_array[Any], first: int, last: int) -> None:
    """Write the rows `first .. last - 1` of a renumbered matrix as those of `rank`."""
    begin, end = matrix.indptr[first], matrix.indptr[last]
    arrays = {
        "indptr": (matrix.indptr[first : last + 1] - begin).astype(np.int64),
        "indices": matrix.indices[begin:end].astype(np.int64),
        "data": matrix.data[begin:end],
    }
    save_arrays(rank_folder(folder, rank), "matrix", arrays)


def load_partition_header(path: Path, num_ranks: int | None = None) -> Header:
    """Read the header of a partition directory and refuse one made for another number of ranks.

    Raises:
        InputError: with what the directory is for and what was expected.
    """
    header = read_header(path, KIND, READS, _NEEDED)
    if num_ranks is not None and header["num_ranks"] != num_ranks:
        raise InputError(
            f"partition {path} is for {header['num_ranks']} ranks, not {num_ranks}; "
            f"use {header['num_ranks']} ranks or partition again for {num_ranks}"
        )
    return header


def partition_seconds(header: Header) -> float:
    """Return what the partitioning took, 0 where it was not noted."""
    seconds = header.get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else 0.0


def load_partition_layouts(path: Path, header: Header) -> Layouts:
    """Read who owns rows and columns.

    Raises:
        InputError: a file is missing, or is no layout for the matrix and the ranks of the header.
    """
    return load_layouts(path, header)


def load_shard(path: Path, layouts: Layouts, rank: int, dtype: npt.DTypeLike | None = None) -> csr_array[Any]:
    """Read the rows of one rank, and only those: (own rows, all columns), in new numbering.

    Args:
        path: a partition directory.
        layouts: of it.
        rank: whose rows.
        dtype: of the values; None keeps them as they are stored.

    Raises:
        InputError: a file is missing or damaged, or the values do not fit `dtype`.
    """
    folder = rank_folder(path, rank)
    indptr, indices = (load_indices(folder, "matrix", name) for name in ("indptr", "indices"))
    data = load_array(folder, "matrix", "data")
    shape = (len(layouts.rows.own_rows(rank)), layouts.cols.num_rows)
    _check_shard(folder, indptr, indices, data, shape)
    try:
        return canonical(csr_array((data, indices, indptr), shape=shape), dtype)
    except InputError as err:
        raise InputError(f"{folder}: {err}") from err


def load_matrix(path: Path, layouts: Layouts, dtype: npt.DTypeLike | None = None) -> csr_array[Any]:
    """Read the whole matrix, in new numbering.

    Raises:
        InputError: a file is missing or damaged, or the values do not fit `dtype`.
    """
    shards = [load_shard(path, layouts, rank, dtype) for rank in range(layouts.rows.num_ranks)]
    return csr_array(vstack(shards, format="csr"))


def _check_shard(folder: Path, indptr: Any, indices: Any, data: Any, shape: tuple[int, int]) -> None:
    lengths = indptr.shape == (shape[0] + 1,) and indices.shape == data.shape == (int(indptr[-1]),)
    if not lengths or indptr[0] != 0 or (np.diff(indptr) < 0).any():
        raise InputError(f"{folder} does not hold {shape[0]} rows of a matrix; partition again")
    if indices.size and (indices.min() < 0 or indices.max() >= shape[1]):
        raise InputError(f"{folder} has a column outside 0 .. {shape[1] - 1}; partition again")
    same_row = np.ones(indices.size, dtype=bool)
    same_row[indptr[:-1][indptr[:-1] < indices.size]] = False
    if (np.diff(indices)[same_row[1:]] <= 0).any():
        raise InputError(f"{folder} has a row whose columns do not ascend; partition again")
