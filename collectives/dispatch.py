"""Rows for whoever asks, with other requests at every call: embedding lookups, tokens for experts."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sparsecomm.collectives.exchange import Exchange
from sparsecomm.collectives.executed import Executed
from sparsecomm.collectives.guard import ClosedTogether
from sparsecomm.collectives.hierarchical import hierarchical_copies
from sparsecomm.collectives.strategy import Spread
from sparsecomm.collectives.transport.base import agreed
from sparsecomm.collectives.transport.open import open_transport
from sparsecomm.collectives.wire import Rows, WireDtype
from sparsecomm.errors import InputError
from sparsecomm.kernels import Block
from sparsecomm.layout import Layout
from sparsecomm.pattern import Pattern
from sparsecomm.plan import RankPlan
from sparsecomm.table import Column, Table
from sparsecomm.topology import Topology
from sparsecomm.typing import Bools, IntGlobal, IntRank


class Dispatch(ClosedTogether):
    """Fetches the rows that this rank asks for, and sends answers back to their owners, weighted and summed.

    Each call of `fetch` has requests of its own, in any order and with repeats. A row enters a node once and a rank
    once, however often it is asked for there; on the way back answers are summed on each rank and in each node before
    they cross. The ranks plan every call together, which is part of its time; memory is kept from call to call.

    Args:
        layout: who owns the rows (tokens, or the rows of an embedding table).
        topology: of the job.
        comm: an mpi4py communicator or a transport, duplicated; None is the world.
        width: columns of the rows.
        dtype: of the rows and of all sums.
        wire_dtype: what rows are rounded to on their way, one for all levels or one for each.
        spread: schedules the rows that travel; by default one level of the topology after the other.

    Attributes:
        call: which `fetch` or new `ask`, counted from 1, made the plan that there is.
        requests: (num_requests,) int64 rows of that call.

    Raises:
        InputError: on all ranks, when an argument is out of range or the numbers of ranks differ.

    Note: Collective over comm.

    Source: duplicates and their inverse index as in RecD (Zhao et al., MLSys 2023), applied at every level; dispatch
        and combine as one plan and its transpose.
    """

    def __init__(
        self,
        layout: Layout,
        topology: Topology,
        comm: object | None = None,
        *,
        width: int,
        dtype: npt.DTypeLike = np.float32,
        wire_dtype: WireDtype = None,
        spread: Spread = hierarchical_copies,
    ) -> None:
        self.layout, self.topology, self._spread = layout, topology, spread
        self._transport = open_transport(comm)
        agreed(self._transport, lambda: _check_ranks(layout, topology, self._transport.num_ranks))
        rank = self._transport.rank
        own, none = layout.own_rows(rank), np.empty(0, dtype=np.int64)
        self._exchange = Exchange(
            RankPlan(rank, own.start, len(own), none, none, ()),
            self._transport,
            width,
            dtype,
            wire_dtype=wire_dtype,
            num_levels=topology.num_levels,
        )
        self._set_requests(none)
        self.call = self._num_calls = 0

    def __repr__(self) -> str:
        return f"Dispatch(num_rows={self.layout.num_rows}, topology={self.topology.name!r}, {self._exchange!r})"

    @property
    def num_own(self) -> int:
        """Rows that this rank owns."""
        return self._exchange.plan.num_own

    @property
    def width(self) -> int:
        """Columns of the rows."""
        return self._exchange.width

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the rows and of all sums."""
        return self._exchange.dtype

    @property
    def executed(self) -> Executed:
        """What this rank has sent, received and copied since the object was made, planning apart."""
        return self._exchange.executed

    def send(self, rows: IntGlobal, to_rank: IntRank, **columns: Column) -> Table:
        """Turn requests that owners make for others into requests of those others, where owners know who needs what.

        Args:
            rows: (n,) int64 global rows.
            to_rank: (n,) int32, who is to have each; more than once where `rows` repeats.
            columns: (n, ...) more about each request, such as its expert and its weight.

        Returns:
            The requests sent to this rank, by rank of origin and place there: `row`, and the other columns. Their
            `row` is what `fetch` takes.

        Raises:
            InputError: on all ranks, when one rank asks for a row or a rank that does not exist.

        Note: Collective over comm.
        """
        agreed(self._transport, lambda: self._check_sent(rows, to_rank, columns))
        table = Table(np.full(rows.size, self._transport.rank, dtype=np.int32), {"row": rows, **columns})
        return self._transport.route(table, to_rank)

    def fetch(self, x: Rows, rows: IntGlobal) -> Rows:
        """Return row `rows[i]` for every request i.

        Args:
            x: (num_own, width) rows that this rank owns; not modified.
            rows: (num_requests,) int64 global rows, own ones too, in any order, with repeats.

        Returns:
            (num_requests, width), the caller's to keep.

        Raises:
            InputError: on all ranks, when one rank asks for a row that does not exist, or `x` does not fit.

        Note: Collective over comm.
        """
        agreed(self._transport, lambda: self._check_fetch(x, rows))
        self._plan_anew(rows)
        return self._fetch(x)

    def ask(self, rows: IntGlobal) -> None:
        """Make requests as `fetch` does, without fetching; planned only where those of some rank are new.

        Args:
            rows: (num_requests,) int64 global rows.

        Raises:
            InputError: on all ranks, when one rank asks for a row that does not exist.

        Note: Collective over comm.
        """
        agreed(self._transport, lambda: self._check_rows(rows))
        is_new = not np.array_equal(rows, self.requests)
        if self._transport.reduce(np.array([is_new], dtype=np.int64), "max")[0]:
            self._plan_anew(rows)

    def fetch_again(self, x: Rows) -> Rows:
        """Return what the last `fetch` would return for another `x`, without planning.

        Raises:
            InputError: on all ranks, when `x` of one does not fit.

        Note: Collective over comm.
        """
        agreed(self._transport, lambda: self._check_block(x, self.num_own, "own"))
        return self._fetch(x)

    def go_back(self, call: int, rows: IntGlobal) -> None:
        """Make the requests of an earlier `fetch` the last ones, planning them again; nothing to do if they are.

        Args:
            call: the value of `call` after that `fetch`, the same on all ranks.
            rows: what this rank gave it.

        Note: Collective over comm.
        """
        if call != self.call:
            agreed(self._transport, lambda: self._check_rows(rows))
            self._plan(rows)
            self.call = call

    def combine(self, answers: Rows, weights: npt.NDArray[Any] | None = None) -> Rows:
        """Return for every own row the sum, over all ranks, of the answers to the requests for it.

        Args:
            answers: (num_requests, width), in the order of the requests of the last `fetch`; not modified.
            weights: (num_requests,) that answers are multiplied by; None is 1.

        Returns:
            (num_own, width) sums, zero for rows that nobody asked for; the caller's to keep.

        Raises:
            InputError: on all ranks, when `answers` or `weights` of one do not fit its requests.

        Note: Collective over comm.
        """
        agreed(self._transport, lambda: self._check_combine(answers, weights))
        exchange = self._exchange
        factors = np.ones(len(answers)) if weights is None else weights
        for block in (self._to_ghosts, self._to_own):
            block.update(factors.astype(exchange.dtype, copy=False))
        partials = exchange.partials_buffer()
        self._to_ghosts.multiply(answers, partials)
        pending = exchange.start_reverse(partials)
        sums = np.empty((self.num_own, exchange.width), dtype=exchange.dtype)
        self._to_own.multiply(answers, sums)
        return pending.wait(sums)

    def close(self) -> None:
        """Free communicators and buffers; a second call does nothing.

        Note: Collective over comm.
        """
        self._exchange.close()
        self._transport.close()

    def _plan_anew(self, rows: IntGlobal) -> None:
        self._plan(rows)
        self._num_calls += 1
        self.call = self._num_calls

    def _plan(self, rows: IntGlobal) -> None:
        rank = np.full(rows.size, self._transport.rank, dtype=np.int32)
        self._exchange.replan(Pattern.of_requests(rank, rows, self.layout), self.topology, self._spread)
        self._set_requests(rows)

    def _fetch(self, x: Rows) -> Rows:
        pending = self._exchange.start(x)
        found = np.empty((self._is_own.size, self._exchange.width), dtype=self._exchange.dtype)
        found[self._is_own] = x[self._place[self._is_own]]
        found[~self._is_own] = pending.wait()[self._place[~self._is_own]]
        return found

    def _set_requests(self, rows: IntGlobal) -> None:
        """Find the place of every request among the own or the ghost rows, and the transpose of that."""
        plan, self.requests = self._exchange.plan, rows.copy()
        self._is_own: Bools = (rows >= plan.start) & (rows < plan.start + plan.num_own)
        self._place = np.where(self._is_own, rows - plan.start, np.searchsorted(plan.ghost_rows, rows))
        self._to_own = self._transposed(np.flatnonzero(self._is_own), plan.num_own)
        self._to_ghosts = self._transposed(np.flatnonzero(~self._is_own), plan.num_ghost)

    def _transposed(self, requests: IntGlobal, num_rows: int) -> Block:
        return Block((num_rows, self._is_own.size), self._place[requests], requests, requests)

    def _check_sent(self, rows: IntGlobal, to_rank: IntRank, columns: dict[str, Column]) -> None:
        self._check_rows(rows)
        lengths = {"rows": rows.size, "to_rank": len(to_rank), **{name: len(c) for name, c in columns.items()}}
        if len(set(lengths.values())) > 1 or "row" in columns:
            raise InputError(f"send needs columns of one length, none named 'row', not {lengths}")
        num_ranks = self.layout.num_ranks
        if to_rank.size and not 0 <= to_rank.min() <= to_rank.max() < num_ranks:
            raise InputError(
                f"requests go to ranks {to_rank.min()} .. {to_rank.max()}, but ranks are 0 .. {num_ranks - 1}"
            )

    def _check_fetch(self, x: Rows, rows: IntGlobal) -> None:
        self._check_rows(rows)
        self._check_block(x, self.num_own, "own")

    def _check_combine(self, answers: Rows, weights: npt.NDArray[Any] | None) -> None:
        num_requests = self._is_own.size
        self._check_block(answers, num_requests, "answered")
        if weights is not None and weights.shape != (num_requests,):
            raise InputError(f"the weights must be one for each of {num_requests} requests, not {weights.shape}")

    def _check_rows(self, rows: IntGlobal) -> None:
        if rows.ndim != 1 or rows.dtype != np.int64:
            raise InputError(f"requests must be a list of int64 rows, not {rows.dtype} {rows.shape}")
        if rows.size and not 0 <= rows.min() <= rows.max() < self.layout.num_rows:
            raise InputError(
                f"rank {self._transport.rank} asks for rows {rows.min()} .. {rows.max()}, but rows are "
                f"0 .. {self.layout.num_rows - 1}"
            )

    def _check_block(self, block: Rows, num_rows: int, noun: str) -> None:
        expected = (num_rows, self._exchange.width)
        if block.shape != expected or block.dtype != self._exchange.dtype:
            raise InputError(
                f"rank {self._transport.rank}: the {noun} rows must be {self._exchange.dtype} {expected}, "
                f"not {block.dtype} {block.shape}"
            )


def _check_ranks(layout: Layout, topology: Topology, num_ranks: int) -> None:
    ranks = {"layout": layout.num_ranks, "topology": topology.num_ranks, "job": num_ranks}
    if len(set(ranks.values())) > 1:
        raise InputError("numbers of ranks differ: " + ", ".join(f"{name} {count}" for name, count in ranks.items()))
