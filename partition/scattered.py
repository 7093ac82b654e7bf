"""Partitioners that look at no structure: `random`, and `given`, a file of ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from sparsecomm.errors import InputError
from sparsecomm.layout import Layout, Layouts
from sparsecomm.partition.columns import with_columns
from sparsecomm.partition.contiguous import cut_in_order
from sparsecomm.partition.request import Request
from sparsecomm.topology import Topology
from sparsecomm.typing import IntRank


def partition_random(matrix: csr_array[Any], topology: Topology, request: Request) -> Layouts:
    """Deal the rows out at random, balanced in nonzeros."""
    order = np.random.default_rng(request.seed).permutation(matrix.shape[0])
    owners = np.empty(matrix.shape[0], dtype=np.int32)
    owners[order] = cut_in_order(np.diff(matrix.indptr)[order].astype(np.int64), request.shares(topology))
    return with_columns(matrix, owners, topology, request.shares(topology))


def partition_given(path: Path, matrix: csr_array[Any], topology: Topology, request: Request) -> Layouts:
    """Use the ranks that a file gives: one per row, then, for a rectangular matrix, if at all, one per column.

    Args:
        path: text with whole numbers, as METIS and KaHyPar write them, or `.npy`.
        matrix, topology, request: as for every partitioner.

    Raises:
        InputError: the file cannot be read, or does not fit the matrix and the ranks.
    """
    ranks = _read_ranks(path)
    rows, cols = matrix.shape
    if ranks.size not in {rows, rows + cols} or (rows == cols and ranks.size != rows):
        wanted = f"{rows}" if rows == cols else f"{rows} (rows) or {rows + cols} (rows, then columns)"
        raise InputError(f"{path} gives {ranks.size} ranks, but {wanted} are expected")
    try:
        if ranks.size == rows:
            return with_columns(matrix, ranks, topology, request.shares(topology))
        return Layouts(*(Layout.from_owners(part, topology.num_ranks) for part in np.split(ranks, [rows])))
    except InputError as err:
        raise InputError(f"{path}: {err}") from err


def _read_ranks(path: Path) -> IntRank:
    try:
        if path.suffix == ".npy":
            ranks = np.load(path, allow_pickle=False)
        else:
            ranks = np.array(path.read_text().split(), dtype=np.int64)
    except OSError as err:
        raise InputError(f"{path} cannot be read: {err.strerror or err}; give a file of one rank per row") from err
    except (ValueError, OverflowError, EOFError) as err:
        raise InputError(f"{path} is no list of ranks: {err}; give one whole number per row") from err
    if ranks.ndim != 1 or ranks.dtype.kind not in "iu":
        raise InputError(f"{path} holds {ranks.dtype} of shape {ranks.shape}; give one whole number per row")
    return np.asarray(ranks)
