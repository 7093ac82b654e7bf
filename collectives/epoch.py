"""Memory that others read is not written again before they say that they are done."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sparsecomm.collectives.transport.base import MessageBuffer, SharedMemory, Transport
from sparsecomm.typing import IntRank


class Epoch:
    """The time, in every run of one buffer set, in which ranks read each other's rows where they lie.

    Args:
        memory: that holds the rows.
        transport: carries the messages, which are empty.
        number: of these messages.
        sources: the ranks whose memory this one reads.
        readers: the ranks that read the memory of this one.
    """

    def __init__(
        self, memory: SharedMemory, transport: Transport, number: int, sources: IntRank, readers: IntRank
    ) -> None:
        def messages(peers: IntRank) -> list[MessageBuffer]:
            return [MessageBuffer(int(peer), number, np.empty(0, dtype=np.uint8)) for peer in peers]

        self.fence: Callable[[], None] = memory.fence
        self._num_sources = sources.size
        self._channel = transport.open(messages(sources), messages(readers))
        self._num_readers, self._left = readers.size, 0
        self.reading = False

    def begin(self) -> None:
        """Let others read from now on; the rows given are in their place and nobody reads older ones."""
        self.fence()
        self._left, self.reading = self._num_readers, True
        self._channel.start()

    def release(self) -> None:
        """Tell the ranks whose memory was read that this one is done with it; a second time does nothing."""
        if self.reading:
            self.reading = False
            self.fence()
            for index in range(self._num_sources):
                self._channel.post(index)

    def quiet(self) -> bool:
        """Return whether all readers of this rank's memory are done."""
        if self._left:
            self._left -= len(self._channel.test())
        return self._left == 0 and self._channel.sent()

    def close(self) -> None:
        self._channel.close()
