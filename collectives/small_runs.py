"""Runs whose messages are small, each as one call: all that it needs is looked up when it is made first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from sparsecomm.collectives.buffers import Move, same_memory
from sparsecomm.collectives.burst import Burst
from sparsecomm.collectives.direction import Direction
from sparsecomm.collectives.epoch import Epoch
from sparsecomm.collectives.executed import Counter
from sparsecomm.collectives.run import Run
from sparsecomm.collectives.transport.base import Arrival, Swap
from sparsecomm.collectives.transport.waits import Wait, until
from sparsecomm.collectives.under_way import UnderWay
from sparsecomm.collectives.wire import Rows
from sparsecomm.profile import here


class _Parts(NamedTuple):
    """What a run of one buffer set is made of; `finish` returns its result."""

    place: Rows
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    packs: Sequence[Move]
    swap: Swap
    make_wait: Callable[[], Wait]
    arrivals: Sequence[Arrival]
    unpacks: Sequence[Move]
    finish: Callable[[], Rows]
    run: Run
    epoch: Epoch | None


class SmallRuns:
    """Whole runs of a direction, counted by their number: all are alike.

    Args:
        direction: whose buffer sets are used in turn.
        under_way: the runs of the exchange.
        counter: told of the runs when it is asked.
    """

    def __init__(self, direction: Direction, under_way: UnderWay, counter: Counter) -> None:
        self._direction, self._under_way, self._counter = direction, under_way, counter
        self._guard, self._depth = under_way.guard, direction.depth
        self._parts: dict[int, _Parts | None] = {}
        direction.on_join = self._parts.clear
        self._burst: Burst | None = None
        self._num_runs = self._num_copied = self._num_bytes = 0

    def __call__(self, block: Rows) -> Rows | None:
        """Return what a whole run brings; None, nothing done, where it is not small or something else goes on."""
        if self._under_way.runs or here.recorder is not None or not self._guard.usable:
            return None
        direction = self._direction
        if direction.num_begun in direction.joining:
            return None
        turn = direction.num_begun % self._depth
        parts = self._parts[turn] if turn in self._parts else self._make(turn)
        if parts is None:
            return None
        place, shape, dtype, packs, swap, make_wait, expected, unpacks, finish, run, epoch = parts
        if block.shape != shape or block.dtype != dtype:
            direction.check_given(block)
        direction.num_begun += 1
        try:
            if epoch is not None:
                self._settle(run, epoch)
            lent = block is place or (block.base is not None and same_memory(place, block))
            if not lent:
                place[...] = block
                self._num_copied += 1
            for pack in packs:
                pack()
            arrivals = swap(make_wait)
            if arrivals != expected:
                run.expect_all()
                run.advance(arrivals)
            for unpack in unpacks:
                unpack()
            if lent and epoch is not None:
                self._settle(run, epoch)
        except BaseException as error:
            self._guard.fail(error)
            raise
        self._num_runs += 1
        return finish()

    def _make(self, turn: int) -> _Parts | None:
        run = self._direction.free_run()
        burst, place, swap = run.burst, run.place, run.swap()
        parts = None
        if burst is not None and swap is not None:
            self._burst, self._num_bytes = burst, place.nbytes
            packs: Sequence[Move] = burst.packs
            unpacks: Sequence[Move] = burst.unpacks
            if run.epoch is not None:
                packs, unpacks = run.epoch.around(packs, unpacks, run.copy_out)
            moves = packs, swap, partial(self._wait_for, run), burst.arrivals, unpacks
            parts = _Parts(place, place.shape, place.dtype, *moves, self._direction.finish_of(run), run, run.epoch)
        self._parts[turn] = parts
        return parts

    def _settle(self, run: Run, epoch: Epoch) -> None:
        """Return when nobody reads the memory of a run any more."""
        epoch.release()
        if not epoch.quiet():
            until(epoch.quiet, lambda: self._under_way.wait_for(run))

    def _wait_for(self, run: Run) -> Wait:
        run.expect_all()
        return self._under_way.wait_for(run)

    def count(self) -> None:
        """Tell the counter of the runs made since it was told last."""
        if not self._num_runs or self._burst is None:
            return
        runs, self._num_runs = self._num_runs, 0
        copies, self._num_copied = self._num_copied, 0
        self._burst.count(self._counter, runs)
        self._counter.copied[0] += copies * self._num_bytes
