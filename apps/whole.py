"""A whole dense block, in original numbering on one rank, from and to the rows that every rank owns."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sparsecomm.collectives.transport.base import Transport
from sparsecomm.errors import InputError
from sparsecomm.layout import Layout
from sparsecomm.table import Table

Dense = npt.NDArray[Any]


def distribute(x: Dense | None, layout: Layout, transport: Transport, root: int = 0) -> Dense:
    """Send the rows of a whole X, in original numbering on `root`, to their owners.

    Args:
        x: (num_rows, k) or (num_rows,) on `root`, None elsewhere.
        layout: who owns the rows.
        transport: over the ranks of the layout.
        root: the rank that has X.

    Raises:
        InputError: on every rank, when X has another number of rows or is missing on `root`.

    Note: Collective over comm.
    """
    at_root = transport.rank == root
    wrong = None
    if at_root and (x is None or x.ndim not in (1, 2) or x.shape[0] != layout.num_rows):
        wrong = InputError(f"X must have {layout.num_rows} rows on rank {root}, not {None if x is None else x.shape}")
    transport.agree(wrong)
    kind = transport.bcast((x.dtype.str, x.shape[1:]) if x is not None and at_root else None, root)
    assert kind is not None  # `root` has X, or `agree` raised
    block = np.empty((0, *kind[1]), dtype=kind[0]) if x is None or not at_root else x[layout.new_to_old()]
    owners = layout.owners() if at_root else np.empty(0, dtype=np.int32)
    rank = np.full(block.shape[0], transport.rank, dtype=np.int32)
    return np.ascontiguousarray(transport.route(Table(rank, {"x": block}), owners)["x"])


def collect(y: Dense, layout: Layout, transport: Transport, root: int = 0) -> Dense | None:
    """Return a whole Y, in original numbering, on `root`; None elsewhere.

    Args:
        y: (num_own, k) or (num_own,), this rank's rows.
        layout: who owns the rows.
        transport: over the ranks of the layout.
        root: the rank that gets Y.

    Raises:
        InputError: on every rank, when some rank gave another number of rows than it owns, or columns or a dtype that
            the others do not have.

    Note: Collective over comm.
    """
    _check_alike(y, layout, transport)
    rank = np.full(y.shape[0], transport.rank, dtype=np.int32)
    moved = transport.route(Table(rank, {"y": np.ascontiguousarray(y)}), np.full(y.shape[0], root, dtype=np.int32))
    if transport.rank != root:
        return None
    return _in_old_order(moved["y"], layout)


def replicate(y: Dense, layout: Layout, transport: Transport) -> Dense:
    """Return a whole Y, in original numbering, on every rank; made to be called in every step of a solver.

    Args:
        y: (num_own, k) or (num_own,), this rank's rows, with the same columns and dtype on all ranks.
        layout: who owns the rows.
        transport: over the ranks of the layout.

    Raises:
        ExchangeError: parts from other ranks have other columns or another dtype than this rank's.

    Note: Collective over comm.
    """
    num_ranks = transport.num_ranks
    rank = np.full(y.shape[0] * num_ranks, transport.rank, dtype=np.int32)
    to_rank = np.repeat(np.arange(num_ranks, dtype=np.int32), y.shape[0])
    copies = np.tile(y, (num_ranks,) + (1,) * (y.ndim - 1))
    return _in_old_order(transport.route(Table(rank, {"y": copies}), to_rank)["y"], layout)


def _in_old_order(y: Dense, layout: Layout) -> Dense:
    """Return rows that arrived by the rank they came from, which is their new order."""
    return np.ascontiguousarray(y if layout.old_to_new is None else y[layout.old_to_new])


def _check_alike(y: Dense, layout: Layout, transport: Transport) -> None:
    """Refuse parts of Y that do not make one block.

    Note: Collective over comm.
    """
    owned, error = len(layout.own_rows(transport.rank)), None
    if y.ndim not in (1, 2) or y.shape[0] != owned:
        error = InputError(f"Y must have {owned} rows on rank {transport.rank}, not shape {y.shape}")
    transport.agree(error)
    first = transport.bcast((y.dtype.str, y.shape[1:]))
    if (y.dtype.str, y.shape[1:]) != first:
        error = InputError(f"Y is {y.dtype} with columns {y.shape[1:]}, but on rank 0 {first[0]} with {first[1]}")
    transport.agree(error)
