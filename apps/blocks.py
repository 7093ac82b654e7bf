"""The 2 x 2 blocks of one rank: {own, ghost} rows x {own, ghost} columns, and how values reach them."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from sparsecomm.collectives.copies import build_rank_plan
from sparsecomm.collectives.direct import direct_copies
from sparsecomm.collectives.exchange import Exchange
from sparsecomm.collectives.transport.base import Transport, agreed
from sparsecomm.errors import InputError
from sparsecomm.kernels import Block
from sparsecomm.kernels.threads import cores_key, num_threads
from sparsecomm.layout import Layout
from sparsecomm.pattern import Pattern
from sparsecomm.plan import RankPlan, any_at
from sparsecomm.product import RankProduct
from sparsecomm.table import Table
from sparsecomm.topology import Topology
from sparsecomm.typing import IntGlobal, IntRank

Values = npt.NDArray[Any]
_FOREIGN: Final = "the product was made for another matrix"


class Blocks:
    """A rank's share of the multiplications, as four blocks whose values can be updated.

    Args:
        rows: (own rows, all columns) of the matrix in new numbering.
        product: this rank's part of the product; it says who multiplies each remote nonzero.
        topology: of the job.
        transport: over the ranks of the product.

    Attributes:
        all: the blocks own, in (own rows, ghost columns), out (ghost rows, own columns) and via (both ghosts).
        any_via: whether some rank's via block has nonzeros.
        nnz: nonzeros of the own rows, whoever multiplies them.

    Raises:
        InputError: on every rank, when the product was made for a matrix of another structure.

    Note: Collective over comm.
    """

    def __init__(self, rows: csr_array[Any], product: RankProduct, topology: Topology, transport: Transport) -> None:
        nonzeros = _nonzeros(rows, product)
        multiplier = agreed(transport, lambda: _multipliers(nonzeros, product))
        offsets = np.concatenate([[0], np.cumsum(transport.collect(np.array([rows.nnz], dtype=np.int64)))])
        cores = transport.collect(np.array([cores_key()], dtype=np.int64))
        self._threads = num_threads(sharers=int((cores == cores_key()).sum()))
        self._plan: RankPlan | None = None
        self._moves: dict[np.dtype[Any], Exchange] = {}
        away = multiplier != product.rank
        mine = nonzeros.with_columns(slot=np.arange(rows.nnz)).take(~away)
        if transport.reduce(np.array([away.sum()], dtype=np.int64), "sum")[0]:
            numbered = nonzeros.with_columns(id=np.arange(offsets[product.rank], offsets[product.rank + 1]))
            guests = transport.route(numbered.take(away), multiplier[away]).sort("id")
            pattern = Pattern.of_requests(guests.rank, guests["id"], Layout(offsets))
            self._plan = build_rank_plan(direct_copies(pattern, topology), transport)
            guests = guests.with_columns(slot=rows.nnz + np.arange(len(guests)))
            mine = Table.concat([mine, guests.only("row", "col", "slot")])
        self._topology, self._transport, self.nnz = topology, transport, rows.nnz
        self._set_blocks(mine, product)
        self.update(rows.data)

    def _set_blocks(self, mine: Table, product: RankProduct) -> None:
        (row, row_ghost), (col, col_ghost) = agreed(
            self._transport, lambda: (_local(mine["row"], product.scatter), _local(mine["col"], product.gather))
        )
        sides = [
            (product.scatter.num_own, product.scatter.num_ghost),
            (product.gather.num_own, product.gather.num_ghost),
        ]

        def block(ghost_rows: bool, ghost_cols: bool) -> Block:
            pick = (row_ghost == ghost_rows) & (col_ghost == ghost_cols)
            shape = (sides[0][ghost_rows], sides[1][ghost_cols])
            return Block(shape, row[pick], col[pick], mine["slot"][pick], self._threads)

        own, in_, out, via = block(False, False), block(False, True), block(True, False), block(True, True)
        self.all = (own, in_, out, via)
        self.any_via = bool(self._transport.reduce(np.array([via.nnz], dtype=np.int64), "max")[0])

    def update(self, data: Values) -> None:
        """Take new values of this rank's nonzeros, in CSR order, and send those that others multiply.

        Note: Collective over comm.
        """
        values = data
        if self._plan is not None:
            exchange = self._values_exchange(data.dtype)
            values = np.concatenate([data, exchange.forward(np.ascontiguousarray(data)[:, None])[:, 0]])
        for block in self.all:
            block.update(values)

    def sampled(self, y: tuple[Values, Values], x: tuple[Values, Values]) -> Values:
        """Return `sum over k of y[row, k] * conj(x[col, k])` of every nonzero of the own rows, whoever multiplies it.

        Args:
            y: own rows and ghost rows, (num_own_rows, k) and (num_ghost_rows, k).
            x: own columns and ghost columns, likewise.

        Returns:
            (nnz,) in CSR order.

        Note: Collective over comm.
        """
        guests = self._plan.num_ghost if self._plan is not None else 0
        values = np.zeros(self.nnz + guests, dtype=np.result_type(y[0], x[0]))
        for block, rows, cols in zip(self.all, (y[0], y[0], y[1], y[1]), (*x, *x), strict=True):
            block.sample(rows, cols, values)
        if self._plan is None:
            return values
        return self._values_exchange(values.dtype).reverse(values[self.nnz :, None], values[: self.nnz, None])[:, 0]

    def close(self) -> None:
        """Free what moves the values.

        Note: Collective over comm.
        """
        for exchange in self._moves.values():
            exchange.close()

    def _values_exchange(self, dtype: np.dtype[Any]) -> Exchange:
        assert self._plan is not None  # else nobody multiplies for another
        if dtype not in self._moves:
            levels = self._topology.num_levels
            self._moves[dtype] = Exchange(self._plan, self._transport, 1, dtype, num_levels=levels)
        return self._moves[dtype]


def _nonzeros(rows: csr_array[Any], product: RankProduct) -> Table:
    row = np.repeat(np.arange(rows.shape[0], dtype=np.int64), np.diff(rows.indptr)) + product.scatter.start
    rank = np.full(rows.nnz, product.rank, dtype=np.int32)
    return Table(rank, {"row": row, "col": rows.indices.astype(np.int64)})


def _multipliers(nonzeros: Table, product: RankProduct) -> IntRank:
    """Return the rank that multiplies each nonzero of this rank's rows."""
    multiplier = nonzeros.rank.copy()
    own = product.layouts.cols.own_rows(product.rank)
    remote = np.flatnonzero((nonzeros["col"] < own.start) | (nonzeros["col"] >= own.stop))
    given, num_ranks = product.multiplier, product.layouts.rows.num_ranks
    if given.shape != remote.shape:
        raise InputError(
            f"{_FOREIGN}: it names {given.size} multipliers for the {remote.size} remote nonzeros of rank "
            f"{product.rank}; plan this matrix"
        )
    if given.size and (given.min() < 0 or given.max() >= num_ranks):
        raise InputError(f"the product has multipliers outside ranks 0 .. {num_ranks - 1}; plan again")
    multiplier[remote] = given
    return multiplier


def _local(rows: IntGlobal, plan: RankPlan) -> tuple[IntGlobal, npt.NDArray[np.bool_]]:
    """Return the place of global rows among the own or the ghost rows, and which of the two it is.

    Raises:
        InputError: a row is neither.
    """
    ghost = (rows < plan.start) | (rows >= plan.start + plan.num_own)
    local, wanted = rows - plan.start, rows[ghost]
    local[ghost] = np.searchsorted(plan.ghost_rows, wanted)
    missing = any_at(np.append(plan.ghost_rows, -1)[local[ghost]] != wanted)
    if missing >= 0:
        raise InputError(f"{_FOREIGN}: it brings rank {plan.rank} no row {wanted[missing]}; plan this matrix")
    return local, ghost
