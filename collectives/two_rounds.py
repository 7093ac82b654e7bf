"""Allreduce in two rounds of messages fixed once: chunk j of every rank to rank j, and what it makes of them to all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsecomm.collectives.peers import check_same
from sparsecomm.collectives.transport.base import Channel, MessageBuffer, Transport
from sparsecomm.collectives.transport.waits import Wait, Waiting
from sparsecomm.errors import ExchangeError

Values = npt.NDArray[Any]


class TwoRounds:
    """Combines equally long arrays of all ranks; a rank sends `2 (P - 1) / P` of an array, as in a ring.

    Args:
        transport: over the ranks; duplicated, and the duplicate closed by `close`.
        size: entries of the array.
        dtype: of the entries.
        facts: what else must be the same on all ranks.

    Attributes:
        given: (size,) what this rank brings, to be filled before `run`.
        bytes_sent: by this rank since this was made.

    Raises:
        PlanError: on every rank, when `size`, `dtype` or `facts` differ.

    Note: Collective over comm.
    """

    def __init__(self, transport: Transport, size: int, dtype: npt.DTypeLike, **facts: object) -> None:
        check_same(transport, {"size": size, "dtype": np.dtype(dtype).name, **facts})
        self._transport = transport.duplicate()
        ranks, rank = transport.num_ranks, transport.rank
        bounds = size * np.arange(ranks + 1) // ranks
        chunks = [slice(*bounds[p : p + 2]) for p in range(ranks)]
        self._own, self.given, self._result = chunks[rank], np.zeros(size, dtype), np.zeros(size, dtype)
        self._arrived = np.zeros((ranks, bounds[rank + 1] - bounds[rank]), dtype)
        peers = [p for p in range(ranks) if p != rank]
        to_combine = [MessageBuffer(p, 0, self.given[chunks[p]]) for p in peers]
        combined = [MessageBuffer(p, 1, self._result[self._own]) for p in peers]
        self._rounds = [
            self._open(to_combine, [MessageBuffer(p, 0, self._arrived[p]) for p in peers]),
            self._open(combined, [MessageBuffer(p, 1, self._result[chunks[p]]) for p in peers]),
        ]
        self.bytes_sent = 0

    def run(self, combine: Callable[[Values], Values]) -> Values:
        """Return what the ranks make of `given` together; valid until the next run.

        Args:
            combine: turns (num_ranks, chunk) entries, rank by rank, into (chunk,).

        Raises:
            ExchangeError: a message is shorter than it should be, or a peer failed.

        Note: Collective over comm.
        """
        self._run_round(0)
        self._arrived[self._transport.rank] = self.given[self._own]
        self._result[self._own] = combine(self._arrived)
        self._run_round(1)
        return self._result

    def close(self) -> None:
        """Free what was made.

        Note: Collective over comm.
        """
        for channel, _, _ in self._rounds:
            channel.close()
        self._transport.close()

    def _open(
        self, sends: list[MessageBuffer], recvs: list[MessageBuffer]
    ) -> tuple[Channel, list[MessageBuffer], list[MessageBuffer]]:
        sends, recvs = ([m for m in side if m.data.size] for side in (sends, recvs))
        return self._transport.open(sends, recvs), sends, recvs

    def _run_round(self, number: int) -> None:
        channel, sends, recvs = self._rounds[number]
        wait = Wait(self._transport.watch, lambda: Waiting(f"round {number + 1} of an allreduce"), None)
        channel.start()
        for index, message in enumerate(sends):
            channel.post(index)
            self.bytes_sent += message.data.nbytes
        missing = len(recvs)
        while missing:
            for index, num_bytes in channel.wait(wait):
                _check(recvs[index], num_bytes)
                missing -= 1
        channel.finish(wait)


def _check(message: MessageBuffer, num_bytes: int) -> None:
    if num_bytes != message.data.nbytes:
        raise ExchangeError(f"{num_bytes} bytes of {message.data.nbytes} came from rank {message.peer}")
