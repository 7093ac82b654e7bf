"""Messages as persistent MPI requests on buffers in host memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from mpi4py import MPI

from sparsecomm.collectives.transport.base import Arrival, Landing, MessageBuffer, Swap, byte_view, split
from sparsecomm.collectives.transport.mpi_collective import MpiCollective
from sparsecomm.collectives.transport.mpi_errors import MpiErrors
from sparsecomm.collectives.transport.waits import Wait, until

_Some = Callable[[list[MPI.Prequest], list[MPI.Status]], list[int] | None]

# Messages that take less time to unpack than a rank takes to look for each of them.
_SMALL_BYTES: Final = 1 << 14

# Sends that were under way when their channel was closed after a failure: MPI may read the buffers until it ends.
_ABANDONED: list[Any] = []


class MpiChannel:
    """Persistent sends and receives, split into pieces, over one communicator."""

    def __init__(
        self,
        comm: MPI.Comm,
        sends: Sequence[MessageBuffer],
        recvs: Sequence[MessageBuffer],
        max_bytes: int,
    ) -> None:
        self._errors, self._comm = MpiErrors(comm.rank), comm
        self._sizes = [message.data.nbytes for message in recvs]
        self._buffers = (sends, recvs)
        self._sends = [_requests(comm.Send_init, message, max_bytes) for message in sends]
        pieces = [_requests(comm.Recv_init, message, max_bytes) for message in recvs]
        self._recvs = [request for requests in pieces for request in requests]
        self._piece = [(i, j) for i, requests in enumerate(pieces) for j in range(len(requests))]
        self._landing = Landing([[p.size for p in split(byte_view(m.data), max_bytes)] for m in recvs])
        self._all_landed = [Arrival(i, size) for i, size in enumerate(self._sizes)]
        self._waits_for_all = len(pieces) == len(self._recvs) and sum(self._sizes) <= _SMALL_BYTES
        self._statuses = [MPI.Status() for _ in self._recvs]
        self._posted: Sequence[MPI.Request] = ()
        self._bursts: dict[tuple[int, ...], _Burst] = {}
        self._burst = self._burst_of(())
        self._closed = False

    @property
    def pieces(self) -> list[int]:
        return [len(requests) for requests in self._sends]

    def start(self, posts: tuple[int, ...] = ()) -> None:
        self._landing.start()
        self._burst = burst = self._bursts.get(posts) or self._burst_of(posts)
        self._posted = [*self._posted, *burst.sends] if self._posted else burst.sends
        with self._errors:
            if burst.both:
                MPI.Prequest.Startall(burst.both)

    def _burst_of(self, posts: tuple[int, ...]) -> _Burst:
        sends = [request for index in posts for request in self._sends[index]]
        statuses = [*self._statuses, *(MPI.Status() for _ in sends)]
        return self._bursts.setdefault(posts, _Burst(sends, self._recvs + sends, statuses))

    def post(self, index: int, num_bytes: int | None = None) -> None:
        requests = self._sends[index] if num_bytes is None else []
        with self._errors:
            if num_bytes is not None:
                self._posted = [*self._posted, self._send_part(index, num_bytes)]
                return
            if len(requests) == 1:
                requests[0].Start()
            else:
                MPI.Prequest.Startall(requests)
        self._posted = [*self._posted, *requests]

    def _send_part(self, index: int, num_bytes: int) -> MPI.Request:
        message = self._buffers[0][index]
        return self._comm.Isend([byte_view(message.data)[:num_bytes], MPI.BYTE], message.peer, message.number)

    def test(self) -> list[Arrival]:
        return self._arrivals(MPI.Request.Testsome)

    def wait(self, wait: Wait, *, all_at_once: bool = False) -> list[Arrival]:
        if all_at_once and self._waits_for_all and self._landing.num_open == len(self._recvs):
            return self._wait_for_all(wait)
        # A piece may land without its message being whole.
        arrivals: list[Arrival] = []
        while self._landing.num_open and not arrivals:
            arrivals = self._arrivals(MPI.Request.Testsome)
            if not arrivals:
                wait.idle()
        return arrivals

    def _wait_for_all(self, wait: Wait) -> list[Arrival]:
        alone = self._posted is self._burst.sends  # nothing was posted later
        requests, statuses = self._burst[1:] if alone else (self._recvs, self._statuses)
        with self._errors:
            if not MPI.Request.Testall(requests, statuses):
                until(partial(MPI.Request.Testall, requests, statuses), lambda: wait)
        if alone:
            self._posted = ()
        if [status.Get_count(MPI.BYTE) for status in self._statuses] != self._sizes:
            return self._landed(range(len(self._recvs)))
        self._landing.num_open = 0
        return self._all_landed

    def sent(self) -> bool:
        if not self._posted:
            return True
        with self._errors:
            if not MPI.Request.Testall(self._posted):
                return False
        self._posted = ()
        return True

    def finish(self, wait: Wait) -> None:
        while not self.sent():
            wait.idle()

    def swap(self, posts: tuple[int, ...]) -> Swap | None:
        sends, both, statuses = self._bursts.get(posts) or self._burst_of(posts)
        if not self._waits_for_all or not self._recvs:
            return None
        start = partial(MPI.Prequest.Startall, both)
        measured, bare = partial(MPI.Request.Testall, both, statuses), partial(MPI.Request.Testall, both)
        came, sizes, arrivals = self._statuses, self._sizes, self._all_landed
        num_bytes = MPI.Status.Get_count  # of bytes, if it is given no type
        over = measured

        def swap(make_wait: Callable[[], Wait]) -> list[Arrival]:
            nonlocal over
            try:
                start()
                if not over():
                    until(over, make_wait)
            except BaseException as error:
                self._posted = sends
                with self._errors:
                    raise error
            if over is bare:
                return arrivals
            if list(map(num_bytes, came)) == sizes:
                over = bare  # a peer sends again what it has sent once: its buffers are fixed too
                return arrivals
            self._landing.start()
            return self._landed(range(len(came)))

        return swap

    def as_one(self) -> MpiCollective:
        self.close()
        return MpiCollective(self._comm, *self._buffers)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._posted and not MPI.Request.Testall(self._posted):
            _ABANDONED.append(self._buffers)
        for request in self._recvs:
            if not request.Test():
                request.Cancel()
                request.Wait()
        for request in [*self._recvs, *(request for requests in self._sends for request in requests)]:
            request.Free()

    def _arrivals(self, some: _Some) -> list[Arrival]:
        with self._errors:
            landed = some(self._recvs, self._statuses) or []
        return self._landed(landed)

    def _landed(self, landed: Sequence[int]) -> list[Arrival]:
        arrivals = []
        for index, status in zip(landed, self._statuses, strict=False):
            message, piece = self._piece[index]
            arrival = self._landing.land(message, piece, status.Get_count(MPI.BYTE))
            if arrival is not None:
                arrivals.append(arrival)
        return arrivals


class _Burst(NamedTuple):
    """Sends that are started together with all receives."""

    sends: list[MPI.Prequest]
    both: list[MPI.Prequest]
    statuses: list[MPI.Status]


def _requests(
    make: Callable[[Any, int, int], MPI.Prequest], message: MessageBuffer, max_bytes: int
) -> list[MPI.Prequest]:
    # Pieces share a tag: MPI matches messages between two ranks in the order in which they were started.
    return [
        make([piece, MPI.BYTE], message.peer, message.number) for piece in split(byte_view(message.data), max_bytes)
    ]
