"""A run of an exchange that is under way."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sparsecomm.collectives.direction import Direction, Sums
from sparsecomm.collectives.run import Run
from sparsecomm.collectives.wire import Rows
from sparsecomm.errors import InputError

if TYPE_CHECKING:
    from sparsecomm.collectives.exchange import Exchange


class Pending:
    """A run under way. It must be waited for: dropping it is an error, which closing its exchange raises."""

    def __init__(self, exchange: Exchange, direction: Direction, run: Run) -> None:
        self._exchange, self._direction, self._run = exchange, direction, run
        self._rows: Rows | None = None

    def __repr__(self) -> str:
        return f"Pending({'under way' if self._rows is None else 'complete'}, {self._exchange!r})"

    def __del__(self) -> None:
        if self._rows is None and self._exchange.guard.usable:
            warnings.warn(f"{self!r} was dropped without wait()", RuntimeWarning, stacklevel=2, source=self)

    def progress(self) -> bool:
        """Advance every message that is ready, without blocking, and return whether the run is complete."""
        return self._rows is not None or self._exchange.under_way.progress(self._run)

    def wait(self, out: Rows | None = None, *, meanwhile: Sequence[Pending] = ()) -> Rows:
        """Block until the run is complete and return its rows; called again, return them again.

        Args:
            out: forward, (num_ghost, width) rows to overwrite with the ghosts; in reverse, (num_own, width) rows to
                add the sums to. Without it the rows are memory of the exchange, valid until `depth` more runs of
                the direction have been started; the sums of rows that nobody sends to are zero there.
            meanwhile: runs of other exchanges that must go on while this one blocks: what ranks hand on for others
                stands still where nobody advances it.

        Raises:
            InputError: `out` has another shape or dtype, or the run has been waited for before.
            ExchangeError: what arrived is not what was planned, or a peer failed.
        """
        if out is not None:
            self._check_out(out)
        if self._rows is None:
            self._exchange.under_way.complete(self._run, meanwhile)
            reads = self._run.reads_in_place and out is None
            self._rows = self._run.node_rows if reads else self._direction.result(self._run, out)
            self._run.busy = False
        return self._rows

    def wait_sums(self, *, meanwhile: Sequence[Pending] = ()) -> Sums:
        """Block until a reverse run is complete and return its sums alone, in memory of the exchange; see `wait`."""
        if self._rows is None:
            self._exchange.under_way.complete(self._run, meanwhile)
            self._run.busy = False
        sums = self._direction.sums(self._run)
        self._rows = sums.rows
        return sums

    def release(self) -> None:
        """Say that rows read in place will not be read any more."""
        if self._run.epoch is not None:
            self._run.epoch.release()

    def settle(self) -> None:
        """Block until nobody reads the rows that the run was given in place, if so it was: then they may change."""
        if self._run.lent:
            with self._exchange.guard:
                self._exchange.under_way.settle(self._run)

    def _check_out(self, out: Rows) -> None:
        if self._rows is not None:
            raise InputError("this run has been waited for; give `out` to the first wait()")
        self._direction.check_out(out)
