"""All ranks as threads of one process: the transport of tests, of demonstrations and of a laptop.

What it delivers is exactly what MPI would deliver; sends are buffered. An error in any thread ends the world.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal, TypeVar

import numpy as np

from sparsecomm.collectives.transport.base import (
    MAX_PIECE_BYTES,
    Arrival,
    Bytes,
    Landing,
    MessageBuffer,
    Report,
    Swap,
    byte_view,
    raise_agreed,
    split,
)
from sparsecomm.collectives.transport.local_world import Box, LocalWatch, Space, World
from sparsecomm.collectives.transport.packing import pack_rows, unpack_rows
from sparsecomm.collectives.transport.waits import Wait, Waiting, check_deadline, read_deadline
from sparsecomm.errors import ExchangeError, InputError
from sparsecomm.table import Column, Table
from sparsecomm.typing import IntGlobal, IntRank

T = TypeVar("T")
MAX_RANKS: Final = 64
_LEAVE_S: Final = 20.0  # for a rank to find out that the world failed; one that computes does not


class LocalChannel:
    """Messages through the mailboxes of a world."""

    def __init__(
        self,
        world: World,
        rank: int,
        space: Space,
        sends: Sequence[MessageBuffer],
        recvs: Sequence[MessageBuffer],
    ) -> None:
        self._world, self._rank = world, rank
        self._sends = [(m.peer, (space, rank, m.number), split(byte_view(m.data), world.max_bytes)) for m in sends]
        self._boxes: list[Box] = [(space, m.peer, m.number) for m in recvs]
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

    def swap(self, posts: tuple[int, ...]) -> Swap:
        def swap(make_wait: Callable[[], Wait]) -> list[Arrival]:
            self.start(posts)
            arrivals: list[Arrival] = []
            while self._open:
                arrivals += self.wait(make_wait())
            return sorted(arrivals)

        return swap

    def as_one(self) -> LocalChannel:
        """Return this channel: threads have no such call."""
        return self

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

    def __init__(self, world: World, rank: int, space: Space = (), num_shared: int = 0) -> None:
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

    @property
    def wins_as_one(self) -> bool:
        return False

    def neighbours(self) -> IntRank:
        """Return all ranks: threads share everything."""
        return np.arange(self.num_ranks, dtype=np.int32)

    def device_refusal(self) -> str:
        """Refuse: see `Transport.device_refusal`."""
        return "ranks that are threads copy in the memory of the host"

    def progress(self) -> None:
        """Raise where another rank failed; messages go on by themselves."""
        with self._world.locked():
            pass

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
    world = World(num_ranks, deadline_s, max_bytes)
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


def _join(threads: list[threading.Thread], world: World) -> None:
    """Wait for all threads; once the world failed, no longer than so many seconds for each."""
    for thread in threads:
        while thread.is_alive() and world.cause is None:
            thread.join(0.05)
        thread.join(_LEAVE_S if world.cause is not None else None)
