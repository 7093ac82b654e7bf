"""All messages of a run as one persistent collective call of MPI."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

from mpi4py import MPI

import numpy as np

from sparsecomm.collectives.transport.base import Arrival, MessageBuffer, Swap, byte_view
from sparsecomm.collectives.transport.mpi_errors import MpiErrors
from sparsecomm.collectives.transport.waits import Wait, until
from sparsecomm.typing import IntGlobal

# MPIs whose call is faster. Runs of 2, 4 and 8 ranks take 0.6 to 0.7 of the time of requests with Open MPI 5.0.11;
# with MPICH 5.0.2 they take 1.15, 0.93 and 0.85 of it: benchmarks/results/as_one.txt.
_FASTER: Final = ("Open MPI",)

_SPAN_BYTES: Final = (1 << 31) - 1  # places are told as a C int

# Calls that were under way when their channel was closed after a failure: MPI may use the buffers until it ends.
_ABANDONED: list[Any] = []


class MpiCollective:
    """A channel whose messages move together, all ranks of a communicator taking part in every run.

    A rank's call is over when its own messages are, but it tells nothing before, and cannot be cancelled.

    Args:
        comm: all its ranks make such channels, and start their runs, in one order.
        sends, recvs: one at most for each peer; all sends are posted before any receive is waited for.

    Note: Collective over comm.
    """

    def __init__(self, comm: MPI.Comm, sends: Sequence[MessageBuffer], recvs: Sequence[MessageBuffer]) -> None:
        self._errors = MpiErrors(comm.rank)
        self._out, self._into = _Side(sends, comm.size), _Side(recvs, comm.size)
        self._arrivals = [Arrival(i, message.data.nbytes) for i, message in enumerate(recvs)]
        self._num_sends, self._num_unposted = len(sends), 0
        self._under_way, self._told, self._closed = False, True, False
        with self._errors:
            self._request: Any = comm.Alltoallv_init(self._out.memory, self._into.memory)

    @property
    def pieces(self) -> list[int]:
        return [1] * self._num_sends

    def as_one(self) -> MpiCollective:
        return self

    def start(self, posts: tuple[int, ...] = ()) -> None:
        self._num_unposted, self._told = self._num_sends - len(posts), False
        self._start_if_posted()

    def post(self, index: int, num_bytes: int | None = None) -> None:
        self._num_unposted -= 1
        self._start_if_posted()

    def _start_if_posted(self) -> None:
        if self._num_unposted == 0:
            self._out.copy_in()
            self._under_way = True
            with self._errors:
                self._request.Start()

    def test(self) -> list[Arrival]:
        if self._told or self._num_unposted or not self.sent():
            return []
        self._told = True
        return self._arrivals

    def wait(self, wait: Wait, *, all_at_once: bool = False) -> list[Arrival]:
        self.finish(wait)
        return self.test()

    def sent(self) -> bool:
        if self._under_way:
            with self._errors:
                if not self._request.Test():
                    return False
            self._under_way = False
            self._into.copy_out()
        return True

    def finish(self, wait: Wait) -> None:
        if not self.sent():
            until(self.sent, lambda: wait)

    def swap(self, posts: tuple[int, ...]) -> Swap | None:
        if not self._arrivals or self._out.copies or self._into.copies:
            return None
        start, over, arrivals = self._request.Start, self._request.Test, self._arrivals

        def swap(make_wait: Callable[[], Wait]) -> list[Arrival]:
            try:
                start()
                if not over():
                    until(over, make_wait)
            except BaseException as error:
                self._under_way = True
                with self._errors:
                    raise error
            return arrivals

        return swap

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._under_way and not self._request.Test():
            _ABANDONED.append((self._request, self._out, self._into))
        else:
            self._request.Free()


class _Side:
    """The buffers of the messages that a rank sends, or receives, as a collective call takes them.

    Attributes:
        memory: what the call is given.
        copies: parts of it and the buffers that they stand for, where the buffers are too far apart.
    """

    def __init__(self, messages: Sequence[MessageBuffer], num_ranks: int) -> None:
        buffers = [byte_view(message.data) for message in messages]
        peers = np.array([message.peer for message in messages], dtype=np.int64)
        sizes = np.array([buffer.size for buffer in buffers], dtype=np.int64)
        begins = np.array([buffer.ctypes.data for buffer in buffers], dtype=np.int64)
        first = min(begins.tolist(), default=0)
        span = int((begins + sizes).max(initial=first)) - first
        self._buffers, self.copies = buffers, []
        if span > _SPAN_BYTES:
            begins = np.cumsum(sizes) - sizes
            staged = np.empty(int(sizes.sum()), dtype=np.uint8)
            self.copies = [(staged[b : b + buffer.size], buffer) for b, buffer in zip(begins, buffers, strict=True)]
            first, span, begins = staged.ctypes.data, staged.size, begins + staged.ctypes.data
        whole = MPI.memory.fromaddress(first, span)
        self.memory = [whole, _by_peer(peers, sizes, num_ranks), _by_peer(peers, begins - first, num_ranks), MPI.BYTE]

    def copy_in(self) -> None:
        for part, buffer in self.copies:
            part[:] = buffer

    def copy_out(self) -> None:
        for part, buffer in self.copies:
            buffer[:] = part


def _by_peer(peers: IntGlobal, values: IntGlobal, num_ranks: int) -> list[int]:
    table = np.zeros(num_ranks, dtype=np.int64)
    table[peers] = values
    return list(table.tolist())


@cache
def call_wins() -> bool:
    """Say whether this MPI has the call, and is faster with it."""
    return MPI.get_vendor()[0] in _FASTER and _has_call()


def _has_call() -> bool:
    given, found = np.ones(1, dtype=np.uint8), np.zeros(1, dtype=np.uint8)
    try:
        request = MPI.COMM_SELF.Alltoallv_init([given, [1], [0], MPI.BYTE], [found, [1], [0], MPI.BYTE])
        request.Start()
        request.Wait()
        request.Free()
    except (NotImplementedError, MPI.Exception):
        return False
    return bool(found[0] == 1)
