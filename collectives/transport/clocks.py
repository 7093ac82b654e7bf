"""How far the clock of each rank is ahead of that of rank 0."""

from __future__ import annotations

from typing import Final

import numpy as np

from sparsecomm.collectives.transport.base import Channel, MessageBuffer, Transport
from sparsecomm.collectives.transport.waits import Wait, Waiting
from sparsecomm.profile import clock

_ROUNDS: Final = 12


def clock_offset_ns(transport: Transport) -> int:
    """Return how many nanoseconds the clock of this rank is ahead of that of rank 0.

    Rank 0 asks one rank after the other for its time and takes the answer of the quickest round: the error is at most
    half of what that round took.

    Note: Collective over comm.

    Source: Cristian 1989, probabilistic clock synchronization.
    """
    own = transport.duplicate()
    offsets = np.zeros(own.num_ranks, dtype=np.int64)
    if own.rank == 0:
        for peer in range(1, own.num_ranks):
            offsets[peer] = _ask(own, peer)
    else:
        _answer(own)
    offset = int(own.reduce(offsets, "sum")[own.rank])
    own.close()
    return offset


def _ask(transport: Transport, peer: int) -> int:
    question, answer = np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
    channel = transport.open([MessageBuffer(peer, 0, question)], [MessageBuffer(peer, 1, answer)])
    best_ns, offset = -1, 0
    for _ in range(_ROUNDS):
        channel.start()
        began = clock()
        channel.post(0)
        _wait(channel, transport)
        ended = clock()
        channel.finish(_waiting(transport))
        if best_ns < 0 or ended - began < best_ns:
            best_ns, offset = ended - began, int(answer[0]) - (began + ended) // 2
    channel.close()
    return offset


def _answer(transport: Transport) -> None:
    question, answer = np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
    channel = transport.open([MessageBuffer(0, 1, answer)], [MessageBuffer(0, 0, question)])
    for _ in range(_ROUNDS):
        channel.start()
        _wait(channel, transport)
        answer[0] = clock()
        channel.post(0)
        channel.finish(_waiting(transport))
    channel.close()


def _wait(channel: Channel, transport: Transport) -> None:
    while not channel.wait(_waiting(transport)):
        pass


def _waiting(transport: Transport) -> Wait:
    return Wait(transport.watch, lambda: Waiting("comparing clocks"))
