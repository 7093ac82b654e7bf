"""The runs of an exchange that are under way, and whoever waits for one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sparsecomm.collectives.guard import Guard
from sparsecomm.collectives.run import Run
from sparsecomm.collectives.transport.waits import Wait, Waiting, Watch

if TYPE_CHECKING:
    from sparsecomm.collectives.pending import Pending


class UnderWay:
    """Advances runs, all of them while one is waited for: peers may be waiting for another one.

    Args:
        guard: of the exchange.
        watch: of its transport.
        deadline_s: the longest that a run may wait without anything arriving; 0 for ever, None as the watch.
        name: of the plan, for people.
        num_stages: of the plan.
    """

    def __init__(self, guard: Guard, watch: Watch, deadline_s: float | None, name: str, num_stages: int) -> None:
        self.guard, self._watch, self._deadline_s = guard, watch, deadline_s
        self._name, self._num_stages = name, num_stages
        self.runs: list[Run] = []

    def progress(self, run: Run) -> bool:
        """Advance a run without blocking and return whether it is over; for `Pending`."""
        with self.guard:
            if not run.received:
                run.advance(run.channel.test())
            return run.done()

    def complete(self, run: Run, meanwhile: Sequence[Pending] = ()) -> None:
        """Block until a run is over; for `Pending`."""
        with self.guard:
            run.block()
            if len(self.runs) == 1 and not meanwhile:
                while not run.received:
                    run.advance(run.channel.wait(self.wait_for(run), all_at_once=run.independent))
                if not run.channel.sent():
                    run.channel.finish(self.wait_for(run))
            if not run.done():
                self._until(run.done, run, meanwhile)
            run.complete()
            self.runs.remove(run)

    def _until(self, over: Callable[[], bool], run: Run, meanwhile: Sequence[Pending] = ()) -> None:
        """Let everything go on until `over`, which waits for `run`."""
        wait = self.wait_for(run)
        while not over():
            for pending in meanwhile:
                pending.progress()
            if self._progress_all():
                wait = self.wait_for(run)
            else:
                wait.idle()

    def settle(self, run: Run) -> None:
        """Block until the memory of a run may be written: its user and all who read it are done."""
        if run.epoch is not None:
            run.epoch.release()
            if not run.quiet():
                self._until(run.quiet, run)

    def _progress_all(self) -> bool:
        """Advance every run, since peers may be waiting for another one; return whether anything arrived."""
        moved = False
        for run in self.runs:
            arrivals = [] if run.received else run.channel.test()
            run.advance(arrivals)
            moved |= bool(arrivals)
            run.done()
        return moved

    def wait_for(self, run: Run) -> Wait:
        """Return a wait for what a run needs next."""
        return Wait(self._watch, lambda: self._waiting(run), self._deadline_s)

    def _waiting(self, run: Run) -> Waiting:
        """Say what a run waits for."""
        messages = run.open_messages
        peers = tuple(sorted({message.peer for message in messages}))
        stage = f"stage {messages[0].stage + 1} of {self._num_stages}" if messages else ""
        return Waiting(f"a run {run.name} of plan {self._name}", peers, stage)
