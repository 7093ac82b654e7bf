"""The memory of one direction of an exchange on GPUs that ranks of the node read in place, and when they may."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from sparsecomm.arrays import DeviceArray, current_stream
from sparsecomm.collectives.schedule import Message
from sparsecomm.collectives.transport.base import MessageBuffer, Transport, agreed
from sparsecomm.collectives.transport.ipc import Exported, Opened, swap, wait_for
from sparsecomm.collectives.transport.waits import Wait, Waiting
from sparsecomm.table import Table
from sparsecomm.typing import IntGlobal, IntRank

_READ = -1  # the last event of a rank: it has read what it wanted of all others


class Near:
    """Blocks of ranks that read each other's in place.

    A rank records an event when rows may be read, and one when it has read all it wanted. A wait for an event counts
    only if the event was recorded before, so that an empty message of the host says so each time. Nobody records an
    event anew before those who wait for it have asked the driver to: they say so by the message that ends the run.

    Args:
        num_bytes: of the block of this rank.
        num_turns: how many stages read in place.
        sources: the ranks whose blocks this one reads.
        readers: the ranks that read the block of this one.
        transport: carries the messages, which are empty.
        number: of those messages that end a run.

    Note: Collective over comm.
    """

    def __init__(
        self, num_bytes: int, num_turns: int, sources: IntRank, readers: IntRank, transport: Transport, number: int
    ) -> None:
        self._transport, self._sources, self._readers = transport, sources, readers
        self._mine, self._opened = agreed(transport, lambda: Exported(num_bytes, num_turns + 1)), {}
        offers = swap(agreed(transport, self._mine.offer), np.union1d(sources, readers), transport)
        self._opened = agreed(transport, lambda: {peer: Opened(offer) for peer, offer in offers.items()})
        self._channel = transport.open(_signals(sources, number), _signals(readers, number))
        self._left, self._begun = 0, False

    def block(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        """Return the block of this rank."""
        return self._mine.array(shape, dtype)

    def address(self, peer: int) -> int:
        """Return where the block of another rank begins, for this one."""
        return self._opened[peer].address

    def swap_slots(self, sends: Sequence[Message], recvs: Sequence[Message]) -> list[IntGlobal]:
        """Return, for each receive of a stage, the slots of its peer that the rows lie in.

        Note: Collective over comm.
        """
        told = np.concatenate([np.empty(0, dtype=np.int64), *(message.slots for message in sends)])
        to_rank = np.repeat(*(np.array([*part], dtype=np.int32) for part in _peers_and_rows(sends)))
        sender = np.full(told.size, self._transport.rank, dtype=np.int32)
        slots = self._transport.route(Table(sender, {"slot": told}), to_rank)["slot"]
        ends = list(accumulate(message.num_rows for message in recvs))
        return np.split(slots, ends[:-1])

    def begin(self) -> None:
        """Wait until the block may be written: all who read it in the run before have done so."""
        self._hear()
        if self._begun:
            for peer in self._readers:
                wait_for(self._opened[int(peer)].events[_READ])
        self._begun, self._left = True, self._readers.size
        self._channel.start()

    def record(self, turn: int) -> None:
        """Mark that the rows of a stage may be read."""
        self._mine.events[turn].record(current_stream())

    def wait_for(self, peer: int, turn: int) -> None:
        """Let the stream wait for what `peer` marked, whose message has come."""
        wait_for(self._opened[peer].events[turn])

    def end(self) -> None:
        """Mark that this rank has read all it wants of others, and tell them."""
        self._mine.events[_READ].record(current_stream())
        for index in range(self._sources.size):
            self._channel.post(index)

    def close(self) -> None:
        """Free the block once nobody reads it.

        Note: Collective over comm.
        """
        self._hear()
        self._mine.events[_READ].synchronize()
        for opened in self._opened.values():
            opened.close()
        self._channel.close()
        self._transport.barrier()  # memory that others have open must not be freed
        self._mine.close()

    def _hear(self) -> None:
        """Wait for the messages of all who read the block."""

        def wait() -> Wait:
            return Wait(self._transport.watch, lambda: Waiting("the end of reading a block on a GPU", self._peers()))

        while self._left:
            self._left -= len(self._channel.wait(wait(), all_at_once=True))
        self._channel.finish(wait())

    def _peers(self) -> tuple[int, ...]:
        return tuple(self._readers.tolist())


def _signals(peers: IntRank, number: int) -> list[MessageBuffer]:
    return [MessageBuffer(int(peer), number, np.empty(0, dtype=np.uint8)) for peer in peers]


def _peers_and_rows(messages: Sequence[Message]) -> tuple[list[int], list[int]]:
    return [message.peer for message in messages], [message.num_rows for message in messages]
