"""A plan made ready to run: buffers, messages and order fixed once for many runs."""

from __future__ import annotations

import os
from collections import defaultdict
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsecomm import __version__
from sparsecomm.collectives.buffers import Allocate, Shelf, host_memory, same_memory
from sparsecomm.collectives.burst import moves_as_one
from sparsecomm.collectives.copies import build_rank_plan
from sparsecomm.collectives.direction import Direction, Gather, Scatter, Shelves
from sparsecomm.collectives.executed import Counter, Executed
from sparsecomm.collectives.guard import Guard
from sparsecomm.collectives.hierarchical import hierarchical_copies
from sparsecomm.collectives.in_place import shared_levels
from sparsecomm.collectives.peers import DEBUG, Calls, check_arguments, check_peers, check_same
from sparsecomm.collectives.pending import Pending
from sparsecomm.collectives.profile import record_from_environment
from sparsecomm.collectives.proof import check_ghosts, ghosts_of
from sparsecomm.collectives.rounds import rounds_of
from sparsecomm.collectives.run import Run
from sparsecomm.collectives.small_runs import SmallRuns
from sparsecomm.collectives.strategy import Spread
from sparsecomm.collectives.transport.base import Transport, agreed
from sparsecomm.collectives.transport.waits import check_deadline
from sparsecomm.collectives.under_way import UnderWay
from sparsecomm.collectives.wire import RowFormat, Rows, WireDtype
from sparsecomm.errors import ExchangeError, InputError
from sparsecomm.pattern import Pattern
from sparsecomm.plan import RankPlan, fingerprint_of
from sparsecomm.profile import VARIABLE
from sparsecomm.topology import Topology
from sparsecomm.typing import IntGlobal


class Exchange:
    """Moves rows of a dense block along a plan, forwards (gather) and in reverse (scatter), any number of times.

    Buffers of a direction are made when it is first used. Start the runs of an exchange in the same order on all
    ranks; wait for them in any order. Wait for runs of different exchanges in the same order on all ranks. Only one
    thread uses an exchange. After a failure every later call raises with the first cause chained; an argument that
    is refused is no failure.

    Args:
        plan: of this rank.
        transport: over the ranks of the plan; duplicated, and the duplicate closed by `close`.
        width: columns of the block, at least 1.
        dtype: of the rows and of all sums: integers, floats or complex numbers.
        wire_dtype: what rows are rounded to on their way, one for all levels or one for each: a dtype, `bfloat16` or
            `int8` (with a scale a row); None is `dtype`. Sums are made in `dtype`. See docs/wire.md.
        depth: buffer sets of a direction, and so runs of it that may be under way at once.
        num_levels: of the topology; None takes as many as the stages name.
        deadline_s: the longest that a run may wait without anything arriving; 0 for ever, None as the transport.
        check_finite: look at every row before it leaves this rank, and raise where one is not finite.
        delta: do not send again what did not change since the run before in the same buffers; planned rows and bytes
            are then what is moved at most, and a bit a row. Costs a comparison and a copy of every message.
        rounds: post the messages of a stage in rounds, in each of which a rank sends one at most and receives one at
            most, so that no rank is sent to by many at once.
        name: of the plan, such as `gather`, for records.
        allocate: gives the memory of rows, such as `sparsecomm.arrays.pinned`; nothing is then shared with other ranks.
        topology: of the job, for records; None finds it where one is needed.

    Raises:
        InputError: an argument is out of range, on any rank.
        PlanError: the plan is another rank's, or what one rank sends is not what its peer expects.

    Note: Collective over comm.

    Example:
        >>> exchange = Exchange(plan.rank(transport.rank), transport, width=64)  # doctest: +SKIP
        >>> pending = exchange.start(x)  # doctest: +SKIP
        >>> y = own_block @ x + ghost_block @ pending.wait()  # doctest: +SKIP
    """

    def __init__(
        self,
        plan: RankPlan,
        transport: Transport,
        width: int,
        dtype: npt.DTypeLike = np.float32,
        *,
        wire_dtype: WireDtype = None,
        depth: int = 1,
        num_levels: int | None = None,
        deadline_s: float | None = None,
        check_finite: bool = False,
        delta: bool = False,
        rounds: bool = False,
        name: str = "",
        allocate: Allocate = host_memory,
        topology: Topology | None = None,
    ) -> None:
        self.plan, self.depth, self.delta, self.name = plan, depth, delta, name
        self.num_levels = max([stage.level + 1 for stage in plan.stages] + [num_levels or 1])

        def checked() -> RowFormat:
            check_arguments(plan, transport, depth)
            check_deadline(0 if deadline_s is None else deadline_s)
            return RowFormat.of(width, dtype, wire_dtype, self.num_levels)

        self.form = form = agreed(transport, checked)
        check_same(transport, self._facts() | {"rounds": rounds})
        record_from_environment(transport, topology)
        agreed(transport, lambda: check_peers(plan, transport, form, depth))
        self._rounds = rounds_of(plan, transport) if rounds else None
        self.fingerprint = fingerprint_of(transport.reduce(np.array([plan.hash()], dtype=np.uint64), "sum"))
        self._transport = transport.duplicate()
        self._deadline_s, self._check_finite = deadline_s, check_finite and form.dtype.kind in "fc"
        self._calls = Calls(self._transport) if os.environ.get(DEBUG) else None
        self._counter = Counter(self.num_levels)
        self.guard = Guard(f"rank {plan.rank}: the exchange")
        self._directions: dict[type[Direction], Direction] = {}
        self._small_runs: dict[type[Direction], SmallRuns] = {}
        self._shelves: Shelves = defaultdict(partial(Shelf, allocate))
        self._num_shared = 0 if check_finite or allocate is not host_memory else self._shareable()
        self._as_one = moves_as_one(plan, transport, form, delta or self._check_finite or self._num_shared > 0)
        self._num_replans = 0
        self.under_way = self._none_under_way()

    def __repr__(self) -> str:
        form = self.form
        wires = "" if not any(map(form.rounds, range(self.num_levels))) else f", wire={'/'.join(map(str, form.wires))}"
        return (
            f"Exchange(rank={self.plan.rank}, stages={len(self.plan.stages)}, width={form.width}, "
            f"dtype={form.dtype}{wires}, depth={self.depth})"
        )

    def __enter__(self) -> Exchange:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # Closing is collective: a rank that fails alone would wait in it for ever instead of ending the job.
        if error is None:
            self.close()
        else:
            self.guard.fail(error)

    @property
    def width(self) -> int:
        return self.form.width

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.form.dtype

    @property
    def executed(self) -> Executed:
        """What this rank has sent, received and copied since the exchange was made."""
        return self._counter.executed()

    @property
    def num_shared(self) -> int:
        """How many levels, the innermost, go through shared memory, if it can be had; the transport asks for them.

        Rows that are rounded on their way, or looked at for NaN, travel in messages.
        """
        return self._num_shared

    def ghost_places(self) -> IntGlobal | None:
        """Return where the ghosts are in what a run started with `in_place` returns; None: in their order, alone.

        Note: Collective over comm, the first time.
        """
        in_place = self._direction(Gather).in_place
        return None if in_place is None else in_place.places

    def own_buffer(self) -> Rows:
        """Return (num_own, width) memory that the next `start` reads without a copy if it is given just this.

        Note: Collective over comm, the first time, where levels share memory; so is the first `start`.
        """
        return self._next_place(Gather)

    def partials_buffer(self) -> Rows:
        """Return (num_ghost, width) memory that the next `start_reverse` reads without a copy.

        A reverse run uses its rows up: fill them anew each time.
        """
        return self._next_place(Scatter)

    def start(self, x: Rows, *, in_place: bool = False) -> Pending:
        """Begin to fetch the ghost rows of this rank.

        Args:
            x: (num_own, width) rows that the rank owns, of `dtype`. Copied, unless it is `own_buffer()`: that must
                not change until the run has been waited for.
            in_place: `wait()` returns all rows of the node, the ghosts at `ghost_places()`; nothing is copied where
                levels share memory. The rows may be read until `Pending.release()`; `x`, if it is `own_buffer()`, must
                not change before `Pending.settle()`.

        Raises:
            InputError: `x` has another shape or dtype, or `depth` runs are under way.
        """
        return self._start(Gather, x, in_place)

    def start_reverse(self, partials: Rows) -> Pending:
        """Begin to send partial rows to the owners of their rows, which add them up.

        Args:
            partials: (num_ghost, width) rows of `dtype`, one for each ghost; copied unless it is `partials_buffer()`.

        Raises:
            InputError: `partials` has another shape or dtype, or `depth` runs are under way.
        """
        return self._start(Scatter, partials)

    def forward(self, x: Rows) -> Rows:
        """Fetch the ghost rows: `start(x).wait()`."""
        small = self._small_runs.get(Gather)
        rows = None if small is None else small(x)
        return self.start(x).wait() if rows is None else rows

    def reverse(self, partials: Rows, out: Rows | None = None) -> Rows:
        """Send partial rows to their owners and sum them there: `start_reverse(partials).wait(out)`."""
        small = None if out is not None else self._small_runs.get(Scatter)
        rows = None if small is None else small(partials)
        return self.start_reverse(partials).wait(out) if rows is None else rows

    def replan(self, pattern: Pattern, topology: Topology, spread: Spread = hierarchical_copies) -> None:
        """Go on with a plan for other ghosts, which the ranks make here together.

        Memory is kept, and grows where the new plan needs more; rows that earlier runs returned are overwritten. From
        then on all rows travel in messages.

        Args:
            pattern: the ghosts of this rank from now on.
            topology: of the job, with no more levels than this exchange has.
            spread: schedules the ghosts; by default a row enters each group of ranks once.

        Raises:
            InputError: on all ranks, when a run is under way on one, or `pattern` or `topology` is of another job.

        Note: Collective over comm.
        """
        self.guard.check()
        agreed(self._transport, lambda: self._check_replan(pattern, topology))
        with self.guard:
            self.plan = build_rank_plan(spread(pattern, topology, self._transport), self._transport)
            self._rounds = None if self._rounds is None else rounds_of(self.plan, self._transport)
            for direction in self._directions.values():
                direction.close()
            self._counter.catch_up()
            self._directions, self._small_runs, self._num_shared, self._as_one = {}, {}, 0, False
            self._num_replans += 1
            self.fingerprint = f"made by replan {self._num_replans}"
            self.under_way = self._none_under_way()

    def _check_replan(self, pattern: Pattern, topology: Topology) -> None:
        if self.under_way.runs:
            raise InputError(f"{len(self.under_way.runs)} runs are under way; wait for them before replan()")
        ranks = {"pattern": pattern.layout.num_ranks, "topology": topology.num_ranks, "job": self._transport.num_ranks}
        if len(set(ranks.values())) > 1:
            raise InputError("numbers of ranks differ: " + ", ".join(f"{name} {n}" for name, n in ranks.items()))
        if topology.num_levels > self.num_levels:
            raise InputError(
                f"{topology.name} has {topology.num_levels} levels, but the exchange was made for {self.num_levels}; "
                "give it num_levels"
            )

    def verify(self) -> None:
        """Prove the plan through this transport: every ghost slot must end with its own global row number.

        Raises:
            PlanError: a slot of some rank ends with another one.

        Note: Collective over comm.
        """
        self.guard.check()
        plan = self.plan
        with Exchange(plan, self._transport, 1, np.int64, num_levels=self.num_levels) as proof:
            found = ghosts_of(proof)
        agreed(self._transport, lambda: check_ghosts(plan, found))

    def close(self) -> None:
        """Free what the exchange has made; a second call does nothing.

        Raises:
            ExchangeError: a run was started and never waited for.

        Note: Collective over comm.
        """
        if self.guard.closed:
            return
        forgotten = len(self.under_way.runs) if self.guard.cause is None else 0
        for run in [run for direction in self._directions.values() for run in direction.runs]:
            if run.epoch is not None:
                run.epoch.release()  # others wait for it, whatever became of this rank
            if self.guard.cause is None and not forgotten:
                self.under_way.settle(run)
        self.guard.close()
        for direction in self._directions.values():
            direction.close()
        self._transport.close()
        if forgotten:
            raise ExchangeError(
                f"rank {self.plan.rank}: the exchange was closed with {forgotten} runs that nobody waited for"
            )

    def _none_under_way(self) -> UnderWay:
        watch, stages = self._transport.watch, len(self.plan.stages)
        return UnderWay(self.guard, watch, self._deadline_s, self.fingerprint, stages)

    def _direction(self, kind: type[Direction]) -> Direction:
        self.guard.check()
        direction = self._directions.get(kind)
        if direction is None:
            direction = kind(
                self.plan,
                self._transport,
                self.form,
                self.depth,
                self._counter,
                self._shelves,
                label=(self.name, self.fingerprint),
                check_finite=self._check_finite,
                delta=self.delta,
                num_shared=self._num_shared,
                rounds=self._rounds,
                as_one=self._as_one,
            )
            self._directions[kind] = direction
            if self._calls is None:
                self._small_runs[kind] = SmallRuns(direction, self.under_way, self._counter)
                self._counter.late.append(self._small_runs[kind].count)
        return direction

    def _next_place(self, kind: type[Direction]) -> Rows:
        direction = self._direction(kind)
        run = direction.free_run()
        with self.guard:
            self.under_way.settle(run)
        return run.place

    def _start(self, kind: type[Direction], block: Rows, in_place: bool = False) -> Pending:
        if self._calls is not None:
            with self.guard:
                self._calls.agree(f"start of a run {kind.name}")
        direction = self._direction(kind)
        direction.check_given(block)
        run = direction.free_run()
        with self.guard:
            self.under_way.settle(run)
            run.reads_in_place = in_place and direction.in_place is not None
            self._give(run, block)
            self.under_way.runs.append(run)
            direction.begin(run)
        return Pending(self, direction, run)

    def _give(self, run: Run, block: Rows) -> None:
        run.lent = same_memory(run.place, block)
        if not run.lent:
            np.copyto(run.place, block)
            self._counter.copied[0] += block.nbytes

    def _shareable(self) -> int:
        """Return how many levels can go through shared memory.

        Note: Collective over comm.
        """
        rounding = [level for level in range(self.num_levels) if self.form.rounds(level)]
        return min([shared_levels(self.plan, self._transport), *rounding])

    def _facts(self) -> dict[str, object]:
        """Return what must be the same on all ranks."""
        form = self.form
        return {
            "version": __version__,
            "width": form.width,
            "dtype": str(form.dtype),
            "wire_dtype": "/".join(map(str, form.wires)),
            "depth": self.depth,
            "delta": self.delta,
            "stages": tuple(stage.level for stage in self.plan.stages),
            "levels": self.num_levels,
            VARIABLE: bool(os.environ.get(VARIABLE)),
        }
