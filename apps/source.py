"""Where a matrix and its partition come from: a file, a generator, or a partition directory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from sparsecomm.apps.summary import Json, Loads, MatrixInfo
from sparsecomm.errors import InputError
from sparsecomm.io.fingerprint import matrix_fingerprint
from sparsecomm.io.matrix import read_matrix
from sparsecomm.layout import Layouts
from sparsecomm.matrix_store import (
    load_matrix,
    load_partition_header,
    load_partition_layouts,
    partition_seconds,
    renumber,
    save_partition,
)
from sparsecomm.partition.registry import check_method, partition_matrix
from sparsecomm.partition.request import Request
from sparsecomm.store import HEADER
from sparsecomm.topology import Topology

Say = Callable[[str], None]


def quiet(step: str) -> None:
    """Say nothing about the step that begins."""


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A partitioned matrix.

    Args:
        info: of the matrix in original numbering.
        matrix: in new numbering, all rows.
        layouts: who owns rows and columns.
        method: how it was partitioned.
        seconds: what the partitioning took.
    """

    info: MatrixInfo
    matrix: csr_array[Any]
    layouts: Layouts
    method: str
    seconds: float

    def loads(self) -> Loads:
        nnz = np.diff(self.matrix.indptr[self.layouts.rows.offsets]).astype(np.int64)
        return Loads(self.layouts.rows.counts, nnz)

    def partition_json(self, topology: Topology) -> Json:
        return {"method": self.method, "seconds": self.seconds, "imbalance": self.loads().imbalance(topology)}


def is_partition(spec: str) -> bool:
    """Say whether `spec` is a directory that holds a header."""
    return (Path(spec) / HEADER).is_file()


def load_source(
    spec: str,
    topology: Topology,
    *,
    method: str = "block",
    dtype: npt.DTypeLike | None = np.float32,
    one_based: bool = False,
    request: Request | None = None,
    layouts: Layouts | None = None,
    check: Callable[[MatrixInfo], None] | None = None,
    say: Say = quiet,
) -> Source:
    """Read and partition a matrix, or read a partition directory.

    Args:
        spec: a file, a generator, or a partition directory.
        topology: the ranks to spread over.
        method: a partition method, or a partition directory whose layout is to be used; with `layouts`, what they
            were made by.
        dtype: of the values; None keeps them as they are stored.
        one_based: whether an edge list counts from 1.
        request: limits and effort of the partition method.
        layouts: use these and do not partition.
        check: looks at the matrix before it is partitioned, and raises if it is not the one expected.
        say: told of every step that begins.

    Raises:
        InputError: the matrix cannot be read or the partition does not fit it.
    """
    if is_partition(spec):
        return _from_directory(Path(spec), topology, dtype, say)
    if layouts is None and not is_partition(method):
        check_method(method)
    say(f"reading {spec}")
    matrix = read_matrix(spec, dtype=dtype, one_based=one_based)
    info = MatrixInfo(spec, *matrix.shape, matrix.nnz, matrix_fingerprint(matrix))
    if check is not None:
        check(info)
    begin = time.perf_counter()
    if layouts is None:
        layouts = _partition(matrix, info, topology, method, request or Request(cache=True), say)
    seconds = time.perf_counter() - begin
    return Source(info, renumber(matrix, layouts), layouts, method, seconds)


def _partition(
    matrix: csr_array[Any], info: MatrixInfo, topology: Topology, method: str, request: Request, say: Say
) -> Layouts:
    if not is_partition(method):
        say(f"partitioning by {method} for {topology.num_ranks} ranks")
        return partition_matrix(matrix, topology, method, request)
    header = load_partition_header(Path(method), topology.num_ranks)
    if header["matrix"]["fingerprint"] != info.fingerprint:
        raise InputError(
            f"partition {method} was made for matrix {header['matrix']['name']}, which has another structure than "
            f"{info.name}; partition {info.name}"
        )
    return load_partition_layouts(Path(method), header)


def _from_directory(path: Path, topology: Topology, dtype: npt.DTypeLike | None, say: Say) -> Source:
    header = load_partition_header(path, topology.num_ranks)
    say(f"reading the shards of {path}")
    layouts = load_partition_layouts(path, header)
    matrix = load_matrix(path, layouts, dtype)
    return Source(MatrixInfo(**header["matrix"]), matrix, layouts, header["method"], partition_seconds(header))


def save_source(path: Path, source: Source, topology: Topology) -> None:
    """Write a partition directory.

    Raises:
        InputError: `path` exists and is not a directory that this library wrote.
    """
    header = {
        "matrix": source.info.to_json(),
        "topology": topology.to_dict(),
        "num_ranks": topology.num_ranks,
        **source.partition_json(topology),
    }
    save_partition(path, source.matrix, source.layouts, header)
