"""Partitioners by name: rows and columns of a matrix -> ranks of a topology."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Protocol

from scipy.sparse import csr_array

from sparsecomm.errors import InputError
from sparsecomm.layout import Layouts
from sparsecomm.partition.contiguous import partition_block, partition_nnz, partition_rcm
from sparsecomm.partition.libraries import LIBRARIES
from sparsecomm.partition.limits import check_feasible, check_memory
from sparsecomm.partition.request import Goal, Request, Side
from sparsecomm.partition.scattered import partition_given, partition_random
from sparsecomm.partition.streaming import partition_streaming
from sparsecomm.topology import Topology

GIVEN = "given:"


class Partitioner(Protocol):
    """A function that gives every row and every column of a matrix to a rank."""

    def __call__(self, matrix: csr_array[Any], topology: Topology, request: Request) -> Layouts: ...


_PARTITIONERS: dict[str, Partitioner] = {}


def register_partitioner(name: str, partitioner: Partitioner) -> None:
    """Add a partitioner under a name.

    Raises:
        ValueError: the name is taken.
    """
    if name in _PARTITIONERS:
        raise ValueError(f"a partitioner named {name!r} is registered already")
    _PARTITIONERS[name] = partitioner


def _auto(matrix: csr_array[Any], topology: Topology, request: Request) -> Layouts:
    from sparsecomm.partition.auto import partition_auto

    return partition_auto(matrix, topology, request)


register_partitioner("auto", _auto)
register_partitioner("block", partition_block)
register_partitioner("nnz", partition_nnz)
register_partitioner("random", partition_random)
register_partitioner("rcm", partition_rcm)
register_partitioner("streaming", partition_streaming)
for _library in LIBRARIES:
    register_partitioner(_library.method, _library)


def partitioner_names() -> list[str]:
    """Return the names of the registered partitioners."""
    return list(_PARTITIONERS)


def get_partitioner(method: str) -> Partitioner:
    """Return the partitioner of a name, or of `given:FILE`.

    Raises:
        InputError: no partitioner has that name; with the names there are.
    """
    if method.startswith(GIVEN):
        return partial(partition_given, Path(method.removeprefix(GIVEN)))
    if method not in _PARTITIONERS:
        raise InputError(f"unknown partition method {method!r}; give one of {', '.join(_PARTITIONERS)}, given:FILE")
    return _PARTITIONERS[method]


def check_method(method: str) -> None:
    """Refuse a name that no partitioner has.

    Raises:
        InputError: with the names there are.
    """
    get_partitioner(method)


def partition_rows(
    matrix: csr_array[Any],
    topology: Topology | str,
    method: str | Partitioner = "block",
    *,
    balance: float = 1.05,
    seed: int = 0,
    side: Side = "both",
    weights: tuple[float, ...] = (),
    memory_bytes: int = 0,
    effort: int = 1,
    iterations: int = 1000,
    goal: Goal = "time",
    flat: bool = False,
    refine: bool = True,
    timeout_s: float = 3600.0,
    cache: bool = False,
) -> Layouts:
    """Decide which rank owns which rows and columns.

    Args:
        matrix: (rows, cols); a square matrix gets one layout for both.
        topology: the ranks to spread over, or its name, for example `uniform:2x2`.
        method: a name (`partitioner_names`), `given:FILE`, or a function.
        balance: largest load allowed over the load meant for a rank or node, 1 to 1000.
        seed: of the methods that draw, 0 to 2**31 - 1; equal seeds give equal layouts.
        side, weights, memory_bytes, effort, iterations, goal, flat, refine, timeout_s, cache: see `Request`.

    Raises:
        InputError: unknown method, limits that cannot be kept, or the method's library is missing.
        SparseCommError: the library failed.

    Example:
        >>> from sparsecomm.io.matrix import read_matrix
        >>> A = read_matrix("grid2d:8")
        >>> partition_rows(A, "uniform:2x2").rows.counts.tolist()
        [16, 16, 16, 16]
    """
    request = Request(
        balance=balance, seed=seed, side=side, weights=weights, memory_bytes=memory_bytes, effort=effort,
        iterations=iterations, goal=goal, flat=flat, refine=refine, timeout_s=timeout_s, cache=cache,
    )  # fmt: skip
    return partition_matrix(matrix, Topology.of(topology), method, request)


def partition_matrix(
    matrix: csr_array[Any], topology: Topology, method: str | Partitioner, request: Request
) -> Layouts:
    """Decide which rank owns which rows and columns, as `partition_rows` does.

    Raises:
        InputError: unknown method, limits that cannot be kept, or the method's library is missing.
        SparseCommError: the library failed.
    """
    partitioner = get_partitioner(method) if isinstance(method, str) else method
    check_feasible(matrix, topology, request)
    if request.side == "columns":
        turned = partitioner(csr_array(matrix.T.tocsr()), topology, request)
        layouts = turned if turned.rows is turned.cols else Layouts(turned.cols, turned.rows)
    else:
        layouts = partitioner(matrix, topology, request)
    _check(layouts, matrix, topology)
    check_memory(matrix, layouts, topology, request)
    return layouts


def _check(layouts: Layouts, matrix: csr_array[Any], topology: Topology) -> None:
    shape, ranks = (layouts.rows.num_rows, layouts.cols.num_rows), {layout.num_ranks for layout in layouts}
    if shape != matrix.shape or ranks != {topology.num_ranks}:
        raise InputError(
            f"the partition is for a {shape} matrix on {sorted(ranks)} ranks, but the matrix is {matrix.shape} "
            f"and topology {topology.name} has {topology.num_ranks} ranks"
        )
