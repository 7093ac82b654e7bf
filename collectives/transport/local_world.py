"""What the ranks of one process share: their mail, their collective calls and what becomes of them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, TypeVar

from sparsecomm.collectives.transport.base import Bytes
from sparsecomm.collectives.transport.waits import END, Wait, Waiting, WaitReport, summarise
from sparsecomm.errors import ExchangeError

T = TypeVar("T")
_HOST: Final = "localhost"
Space = tuple[int, ...]
Box = tuple[Space, int, int]  # tag space, source, number


@dataclass(slots=True)
class _Board:
    """What the ranks gave to one collective call."""

    values: dict[int, Any] = field(default_factory=dict)
    num_read: int = 0


class World:
    """What the threads share, all of it guarded by one lock."""

    def __init__(self, num_ranks: int, deadline_s: float, max_bytes: int) -> None:
        self.num_ranks, self.deadline_s, self.max_bytes = num_ranks, deadline_s, max_bytes
        self.failed_rank = -1
        self.cause: BaseException | None = None
        lock = threading.RLock()
        self._lock = lock
        self._woken = [threading.Condition(lock) for _ in range(num_ranks)]
        self._mail: list[dict[Box, deque[Bytes]]] = [{} for _ in range(num_ranks)]
        self._boards: dict[tuple[Space, int], _Board] = {}
        self._waits: dict[int, Wait] = {}
        self.ended: list[int] = []

    @contextmanager
    def locked(self) -> Iterator[None]:
        with self._lock:
            if self.cause is not None:
                raise ExchangeError(f"rank {self.failed_rank} failed: {self.cause!r}") from self.cause
            yield

    def fail(self, rank: int, cause: BaseException) -> None:
        """Record the first failure and wake everyone who waits."""
        with self._lock:
            if self.cause is None:
                self.failed_rank, self.cause = rank, cause
            for woken in self._woken:
                woken.notify_all()

    def sleep(self, rank: int, wait: Wait) -> None:
        """Sleep, with the lock held, until something happens to `rank` or its deadline passes."""
        self._waits[rank] = wait
        try:
            wait.look()
            self._woken[rank].wait(wait.deadline_s - wait.seconds if wait.deadline_s else None)
        finally:
            del self._waits[rank]
        if self.cause is not None:
            raise ExchangeError(f"rank {self.failed_rank} failed: {self.cause!r}") from self.cause

    def give_up(self, rank: int, wait: Wait) -> NoReturn:
        """Raise what the waits of all ranks say together."""
        with self._lock:
            waits = {**self._waits, rank: wait}
            ended = [WaitReport(p, _HOST, Waiting(END), 0.0) for p in self.ended]
        reports = [WaitReport(p, _HOST, one.describe(), one.seconds) for p, one in waits.items()] + ended
        lines = summarise(reports, [_HOST] * self.num_ranks)
        raise ExchangeError(f"a deadline of {wait.deadline_s:g} s has passed: " + "\n".join(lines))

    def deliver(self, dst: int, box: Box, pieces: Sequence[Bytes]) -> None:
        copies = [piece.copy() for piece in pieces]
        with self.locked():
            self._mail[dst].setdefault(box, deque()).extend(copies)
            self._woken[dst].notify_all()

    def pop(self, dst: int, box: Box) -> Bytes | None:
        """Return the oldest piece in a mailbox, if any; the lock is held."""
        waiting = self._mail[dst].get(box)
        return waiting.popleft() if waiting else None

    def share(self, rank: int, space: Space, call: int, value: T, wait: Wait) -> list[T]:
        """Return what every rank gave to collective call number `call` of a tag space."""
        with self.locked():
            board = self._boards.setdefault((space, call), _Board())
            board.values[rank] = value
            if len(board.values) == self.num_ranks:
                for woken in self._woken:
                    woken.notify_all()
            while len(board.values) < self.num_ranks:
                self.sleep(rank, wait)
            board.num_read += 1
            if board.num_read == self.num_ranks:
                del self._boards[space, call]
            return [board.values[p] for p in range(self.num_ranks)]


class LocalWatch:
    """Fails the world when a wait of one of its ranks takes too long."""

    def __init__(self, world: World, rank: int) -> None:
        self._world, self._rank = world, rank

    @property
    def deadline_s(self) -> float:
        return self._world.deadline_s

    def look(self, wait: Wait) -> None:
        """Raise when a wait has taken too long.

        Raises:
            ExchangeError: saying what every rank waits for.
        """
        if wait.too_long:
            self._world.give_up(self._rank, wait)
