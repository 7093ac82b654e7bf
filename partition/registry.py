"""Partitioners by name: rows of a matrix -> ranks of a topology."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from scipy.sparse import csr_array

from sparsecomm.errors import InputError
from sparsecomm.layout import Layouts
from sparsecomm.topology import Topology

Objective = Callable[[Layouts], float]
MAX_BALANCE: Final = 1000


class Partitioner(Protocol):
    """A function that gives every row and every column of a matrix to a rank."""

    def __call__(
        self, matrix: csr_array[Any], topology: Topology, *, objective: Objective | None, balance: float, seed: int
    ) -> Layouts: ...


_PARTITIONERS: dict[str, Partitioner] = {}


def register_partitioner(name: str, partitioner: Partitioner) -> None:
    """Add a partitioner under a name.

    Raises:
        ValueError: the name is taken.
    """
    if name in _PARTITIONERS:
        raise ValueError(f"a partitioner named {name!r} is registered already")
    _PARTITIONERS[name] = partitioner


def partitioner_names() -> list[str]:
    """Return the names of the registered partitioners."""
    from sparsecomm.partition import block, metis  # noqa: F401  (each file registers its own)

    return list(_PARTITIONERS)


def check_method(method: str) -> None:
    """Refuse a name that no partitioner has.

    Raises:
        InputError: with the names there are.
    """
    if method not in partitioner_names():
        raise InputError(f"unknown partition method {method!r}; give one of {', '.join(_PARTITIONERS)}")


def partition_rows(
    matrix: csr_array[Any],
    topology: Topology,
    method: str | Partitioner = "block",
    *,
    objective: Objective | None = None,
    balance: float = 1.03,
    seed: int = 0,
) -> Layouts:
    """Decide which rank owns which rows and columns.

    Args:
        matrix: (rows, cols); a square matrix gets one layout for both.
        topology: the ranks to spread over.
        method: `block` (contiguous), `metis` (least edge cut, balanced in nonzeros), or a function.
        objective: what a method that compares layouts makes small; the others ignore it.
        balance: largest load allowed over the mean load, 1 to 1000.
        seed: of the methods that draw, 0 to 2**31 - 1.

    Raises:
        InputError: unknown method, balance or seed out of range, or the method's library is missing.

    Example:
        >>> from sparsecomm.io.matrix import read_matrix
        >>> A = read_matrix("grid2d:8")
        >>> partition_rows(A, Topology.parse("uniform:2x2")).rows.counts.tolist()
        [16, 16, 16, 16]
    """
    _check_numbers(balance, seed)
    if isinstance(method, str):
        check_method(method)
        method = _PARTITIONERS[method]
    layouts = method(matrix, topology, objective=objective, balance=balance, seed=seed)
    _check(layouts, matrix, topology)
    return layouts


def _check_numbers(balance: float, seed: int) -> None:
    """Refuse what METIS and its like would take for something else: they have 32 bits for each."""
    if not 1.0 <= balance <= MAX_BALANCE:
        raise InputError(f"balance {balance} is not 1 to {MAX_BALANCE}; it is the largest load over the mean load")
    if not 0 <= seed < 2**31:
        raise InputError(f"seed {seed} is not 0 to {2**31 - 1}; choose another number")


def _check(layouts: Layouts, matrix: csr_array[Any], topology: Topology) -> None:
    shape, ranks = (layouts.rows.num_rows, layouts.cols.num_rows), {layout.num_ranks for layout in layouts}
    if shape != matrix.shape or ranks != {topology.num_ranks}:
        raise InputError(
            f"the partition is for a {shape} matrix on {sorted(ranks)} ranks, but the matrix is {matrix.shape} "
            f"and topology {topology.name} has {topology.num_ranks} ranks"
        )
