"""All ranks as threads of one process: the transport of tests, of demonstrations and of a laptop.

What it delivers is exactly what MPI would deliver; sends are buffered. An error in any thread ends the world.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NoReturn, TypeVar

import numpy as np

from sparsecomm.collectives.transport.base import (
    MAX_PIECE_BYTES,
    Arrival,
    Bytes,
    Landing,
    MessageBuffer,
    Report,
    byte_view,
    raise_agreed,
    split,
)
from sparsecomm.collectives.transport.packing import pack_rows, unpack_rows
from sparsecomm.collectives.transport.waits import (
    END,
    Wait,
    Waiting,
    WaitReport,
    check_deadline,
    read_deadline,
    summarise,
)
from sparsecomm.errors import ExchangeError, InputError
from sparsecomm.table import Column, Table
from sparsecomm.typing import IntGlobal, IntRank

T = TypeVar("T")
MAX_RANKS: Final = 64
_HOST: Final = "localhost"
_Space = tuple[int, ...]
_Box = tuple[_Space, int, int]  # tag space, source, number


@dataclass(slots=True)
class _Board:
    """What the ranks gave to one collective call."""

    values: dict[int, Any] = field(default_factory=dict)
    num_read: int = 0


class _World:
    """What the threads share, all of it guarded by one lock."""

    def __init__(self, num_ranks: int, deadline_s: float, max_bytes: int) -> None:
        self.num_ranks, self.deadline_s, self.max_bytes = num_ranks, deadline_s, max_bytes
        self.failed_rank = -1
        self.cause: BaseException | None = None
        lock = threading.RLock()
        self._lock = lock
        self._woken = [threading.Condition(lock) for _ in range(num_ranks)]
        self._mail: list[dict[_Box, deque[Bytes]]] = [{} for _ in range(num_ranks)]
        self._boards: dict[tuple[_Space, int], _Board] = {}
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

    def deliver(self, dst: int, box: _Box, pieces: Sequence[Bytes]) -> None:
        copies = [piece.copy() for piece in pieces]
        with self.locked():
            self._mail[dst].setdefault(box, deque()).extend(copies)
            self._woken[dst].notify_all()

    def pop(self, dst: int, box: _Box) -> Bytes | None:
        """Return the oldest piece in a mailbox, if any; the lock is held."""
        waiting = self._mail[dst].get(box)
        return waiting.popleft() if waiting else None

    def share(self, rank: int, space: _Space, call: int, value: T, wait: Wait) -> list[T]:
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

    def __init__(self, world: _World, rank: int) -> None:
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


class LocalChannel:
    """Messages through the mailboxes of a world."""

    def __init__(
        self,
        world: _World,
        rank: int,
        space: _Space,
        sends: Sequence[MessageBuffer],
        recvs: Sequence[MessageBuffer],
    ) -> None:
        self._world, self._rank = world, rank
        self._sends = [(m.peer, (space, rank, m.number), split(byte_view(m.data), world.max_bytes)) for m in sends]
        self._boxes: list[_Box] = [(space, m.peer, m.number) for m in recvs]
        self._places = [split(byte_view(m.data), world.max_bytes) for m in recvs]
        self._landing = Landing([[place.size for place in places] for places in self._places])
        self._open: dict[int, int] = {}

    @property
    def pieces(self) -> list[int]:
        return [len(pieces) for _, _, pieces in self._sends]

    def start(self, posts: tuple[int, ...] = ()) -> None:
        self._open = dict.fromkeys(range(len(self._boxes)), 0)
        self._landing.start()
        for index in posts:
            self.post(index)

    def post(self, index: int, num_bytes: int | None = None) -> None:
        peer, box, pieces = self._sends[index]
        self._world.deliver(peer, box, pieces if num_bytes is None else [pieces[0][:num_bytes]])

    def test(self) -> list[Arrival]:
        with self._world.locked():
            return self._take()

    def wait(self, wait: Wait, *, all_at_once: bool = False) -> list[Arrival]:
        with self._world.locked():
            while not (arrivals := self._take()) and self._open:
                self._world.sleep(self._rank, wait)
            return arrivals

    def sent(self) -> bool:
        return True

    def finish(self, wait: Wait) -> None:
        """Do nothing: `post` has copied the buffer."""

    def close(self) -> None:
        self._open = {}

    def _take(self) -> list[Arrival]:
        arrivals = [arrival for index in list(self._open) for arrival in self._take_pieces(index)]
        for arrival in arrivals:
            self._open.pop(arrival.message, None)
        return arrivals

    def _take_pieces(self, index: int) -> Iterator[Arrival]:
        places, box = self._places[index], self._boxes[index]
        while self._open[index] < len(places) and (piece := self._world.pop(self._rank, box)) is not None:
            place = places[self._open[index]]
            if piece.size > place.size:
                raise ExchangeError(
                    f"rank {self._rank}: {piece.size} bytes came from rank {box[1]}, room for {place.size}"
                )
            place[: piece.size] = piece
            self._open[index] += 1
            arrival = self._landing.land(index, self._open[index] - 1, piece.size)
            if arrival is not None:
                yield arrival
                return


class LocalMemory:
    """Memory of the process, which all threads have in common."""

    def __init__(self, data: Bytes) -> None:
        self.data = data

    def fence(self) -> None:
        """Do nothing: the lock of every message orders memory."""

    def close(self) -> None:
        """Do nothing: the last user's memory is given back."""


class LocalTransport:
    """One rank of a world of threads; made by `run_local`."""

    def __init__(self, world: _World, rank: int, space: _Space = (), num_shared: int = 0) -> None:
        self._world, self._rank, self._space, self._num_shared = world, rank, space, num_shared
        self._num_calls = self._num_copies = 0
        self._closed = False

    def __repr__(self) -> str:
        return f"LocalTransport(rank={self._rank}, num_ranks={self.num_ranks})"

    def __enter__(self) -> LocalTransport:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.close()

    @property
    def watch(self) -> LocalWatch:
        """What looks at every long wait of this rank."""
        return LocalWatch(self._world, self._rank)

    @property
    def rank(self) -> int:
        return self._rank

    @property
    def num_ranks(self) -> int:
        return self._world.num_ranks

    @property
    def held(self) -> range:
        return range(self._rank, self._rank + 1)

    @property
    def num_shared(self) -> int:
        return self._num_shared

    def neighbours(self) -> IntRank:
        """Return all ranks: threads share everything."""
        return np.arange(self.num_ranks, dtype=np.int32)

    def share(self, num_bytes: int) -> LocalMemory:
        """Return memory in common with all ranks."""
        made = [np.empty(num_bytes, dtype=np.uint8)] if self._rank == 0 else []
        return LocalMemory(self._share(made)[0][0])

    def route(self, table: Table, to_rank: IntRank) -> Table:
        """Move row i to rank `to_rank[i]`; see `Router.route`."""
        given = self._share(pack_rows(table, to_rank, self.num_ranks))
        blocks = {p: sent[self._rank] for p, sent in enumerate(given) if self._rank in sent}
        return unpack_rows(table, self._rank, blocks)

    def reduce(self, values: Column, op: Literal["sum", "max"]) -> Column:
        """Return the sum or maximum over the ranks; see `Router.reduce`."""
        given = np.stack(self._share(np.asarray(values)))
        result = given.sum(axis=0, dtype=given.dtype) if op == "sum" else given.max(axis=0)
        return np.asarray(result)

    def collect(self, values: IntGlobal) -> IntGlobal:
        """Return what every rank gave; see `Router.collect`."""
        return np.concatenate(self._share(np.asarray(values, dtype=np.int64)))

    def agree(self, error: BaseException | None) -> None:
        """Raise on all ranks if any rank has an error; see `Transport.agree`."""
        reports = [report for report in self._share(Report.of(self._rank, error)) if report is not None]
        if reports:
            raise_agreed(error, reports)

    def bcast(self, obj: T, root: int = 0) -> T:
        """Return the object that `root` gave; see `Transport.bcast`."""
        return self._share(obj)[root]

    def barrier(self) -> None:
        """Return when all ranks have come here."""
        self._share(None)

    def duplicate(self, num_shared: int | None = None) -> LocalTransport:
        """Return a transport with a tag space of its own; see `Transport.duplicate`."""
        self._check_open()
        self._num_copies += 1
        shared = self._num_shared if num_shared is None else num_shared
        return LocalTransport(self._world, self._rank, (*self._space, self._num_copies), shared)

    def open(self, sends: Sequence[MessageBuffer], recvs: Sequence[MessageBuffer]) -> LocalChannel:
        """Prepare messages that will run many times."""
        self._check_open()
        return LocalChannel(self._world, self._rank, self._space, sends, recvs)

    def close(self) -> None:
        """Refuse all later use."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise ExchangeError(f"rank {self._rank}: the transport is closed")

    def _share(self, value: T) -> list[T]:
        self._check_open()
        self._num_calls += 1
        # Arrays are copied so that a rank may change its own while slower ranks still read it.
        given = value.copy() if isinstance(value, np.ndarray) else value
        call = self._num_calls
        wait = Wait(self.watch, lambda: Waiting(f"collective call {call}"))
        return self._world.share(self._rank, self._space, call, given, wait)


def run_local(
    num_ranks: int,
    body: Callable[[LocalTransport], T],
    *,
    deadline_s: float | None = None,
    max_bytes: int = MAX_PIECE_BYTES,
    num_shared: int = 0,
) -> list[T]:
    """Run `body` on every rank of a world of threads and return the results by rank.

    Args:
        num_ranks: 1 .. 64.
        body: called once on each rank with its transport.
        deadline_s: the longest that any single wait may take before the world fails; 0 for no end, None for what
            `SPARSECOMM_DEADLINE` says, or 300.
        max_bytes: longer messages are split.
        num_shared: how many levels, the innermost, exchanges go through shared memory for.

    Raises:
        InputError: `num_ranks` or `max_bytes` is out of range.
        BaseException: whatever the first failing rank raised.

    Example:
        >>> run_local(3, lambda transport: int(transport.collect(np.array([transport.rank])).sum()))
        [3, 3, 3]
    """
    if not 1 <= num_ranks <= MAX_RANKS:
        raise InputError(f"run_local runs 1 to {MAX_RANKS} ranks, not {num_ranks}; use MPI for more")
    if max_bytes < 1:
        raise InputError(f"max_bytes must be at least 1, not {max_bytes}")
    deadline_s = read_deadline(os.environ) if deadline_s is None else check_deadline(deadline_s)
    world = _World(num_ranks, deadline_s, max_bytes)
    results: dict[int, T] = {}

    def run(rank: int) -> None:
        try:
            results[rank] = body(LocalTransport(world, rank, num_shared=num_shared))
            world.ended.append(rank)
        except BaseException as err:  # a thread has no caller: the world carries its error to run_local
            world.fail(rank, err)

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(num_ranks)]
    for thread in threads:
        thread.start()
    _join(threads, world)
    if world.cause is not None:
        raise world.cause
    return [results[rank] for rank in range(num_ranks)]


def _join(threads: list[threading.Thread], world: _World) -> None:
    """Wait for all threads; once the world failed, no longer than seconds for each."""
    for thread in threads:
        while thread.is_alive() and world.cause is None:
            thread.join(0.05)
        thread.join(5.0 if world.cause is not None else None)
