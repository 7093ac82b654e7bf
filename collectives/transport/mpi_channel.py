"""Messages as persistent MPI requests on buffers in host memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from mpi4py import MPI

from sparsecomm.collectives.transport.base import Arrival, Landing, MessageBuffer, byte_view, split
from sparsecomm.collectives.transport.waits import Wait
from sparsecomm.errors import PeerError

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
        self._errors, self._comm = _Errors(comm.rank), comm
        self._buffers = (sends, recvs)
        self._sends = [_requests(comm.Send_init, message, max_bytes) for message in sends]
        pieces = [_requests(comm.Recv_init, message, max_bytes) for message in recvs]
        self._recvs = [request for requests in pieces for request in requests]
        self._piece = [(i, j) for i, requests in enumerate(pieces) for j in range(len(requests))]
        self._landing = Landing([[p.size for p in split(byte_view(m.data), max_bytes)] for m in recvs])
        self._small = sum(m.data.nbytes for m in recvs) <= _SMALL_BYTES
        self._statuses = [MPI.Status() for _ in self._recvs]
        self._posted: list[MPI.Request] = []
        self._closed = False

    @property
    def pieces(self) -> list[int]:
        return [len(requests) for requests in self._sends]

    def start(self) -> None:
        self._landing.start()
        with self._errors:
            if self._recvs:
                MPI.Prequest.Startall(self._recvs)

    def post(self, index: int, num_bytes: int | None = None) -> None:
        requests = self._sends[index] if num_bytes is None else []
        with self._errors:
            if num_bytes is not None:
                self._posted.append(self._send_part(index, num_bytes))
                return
            if len(requests) == 1:
                requests[0].Start()
            else:
                MPI.Prequest.Startall(requests)
        self._posted += requests

    def _send_part(self, index: int, num_bytes: int) -> MPI.Request:
        message = self._buffers[0][index]
        return self._comm.Isend([byte_view(message.data)[:num_bytes], MPI.BYTE], message.peer, message.number)

    def test(self) -> list[Arrival]:
        return self._arrivals(MPI.Request.Testsome)

    def wait(self, wait: Wait, *, all_at_once: bool = False) -> list[Arrival]:
        if all_at_once and self._small and self._landing.num_open == len(self._recvs):
            return self._wait_for_all(wait)
        # A piece may land without its message being whole.
        arrivals: list[Arrival] = []
        while self._landing.num_open and not arrivals:
            arrivals = self._arrivals(MPI.Request.Testsome)
            if not arrivals:
                wait.idle()
        return arrivals

    def _wait_for_all(self, wait: Wait) -> list[Arrival]:
        with self._errors:
            while not MPI.Request.Testall(self._recvs, self._statuses):
                wait.idle()
        return self._landed(range(len(self._recvs)))

    def sent(self) -> bool:
        with self._errors:
            if self._posted and not MPI.Request.Testall(self._posted):
                return False
        self._posted = []
        return True

    def finish(self, wait: Wait) -> None:
        while not self.sent():
            wait.idle()

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


class _Errors:
    """Turns errors of MPI into errors of the exchange, and costs less than a generator each time."""

    def __init__(self, rank: int) -> None:
        self._rank = rank

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, MPI.Exception):
            raise PeerError(f"rank {self._rank}: MPI failed: {error.Get_error_string()}") from error


def _requests(
    make: Callable[[Any, int, int], MPI.Prequest], message: MessageBuffer, max_bytes: int
) -> list[MPI.Prequest]:
    # Pieces share a tag: MPI matches messages between two ranks in the order in which they were started.
    return [
        make([piece, MPI.BYTE], message.peer, message.number) for piece in split(byte_view(message.data), max_bytes)
    ]
