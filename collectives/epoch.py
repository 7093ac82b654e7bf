"""Memory that others read is not written again before they say that they are done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from sparsecomm.collectives.buffers import Move
from sparsecomm.collectives.transport.base import SharedMemory, Transport
from sparsecomm.typing import IntRank

_LINE_BYTES: Final = 64  # of the cache: what a rank writes and others look at has one to itself


class Epoch:
    """The time, in every run of one buffer set, in which ranks read each other's rows where they lie.

    Behind the rows there is a number for each rank: how many runs it is done with. Only that rank writes it, it only
    grows, and a look at it costs no message.

    Args:
        memory: of `bytes_with_flags`.
        transport: of the exchange.
        near: the ranks that share the memory, ascending.
        readers: those of them that read the memory of this one.
    """

    def __init__(self, memory: SharedMemory, transport: Transport, near: IntRank, readers: IntRank) -> None:
        self.fence: Callable[[], None] = memory.fence
        self._let_go_on = transport.progress
        self._done_with, self._own = flags_of(memory, near.size), int(np.searchsorted(near, transport.rank))
        self._readers: list[int] = np.searchsorted(near, readers).tolist()
        self._left: list[int] = []
        self._num_runs = 0
        self.reading = False

    def begin(self) -> None:
        """Let others read from now on; the rows given are in their place and nobody reads older ones."""
        self.fence()
        self._num_runs += 1
        self._left, self.reading = list(self._readers), True

    def around(
        self, packs: Sequence[Move], unpacks: Sequence[Move], last: Move | None
    ) -> tuple[Sequence[Move], Sequence[Move]]:
        """Return what a run does before all its messages and after them, if nothing goes on between."""
        ends = [last] if last is not None else []
        return [self.begin, *packs, self.fence], [self.fence, *unpacks, *ends, self.release]

    def release(self) -> None:
        """Tell the ranks whose memory was read that this one is done with it; a second time does nothing."""
        if self.reading:
            self.reading = False
            self.fence()
            self._done_with[self._own] = self._num_runs

    def quiet(self) -> bool:
        """Return whether all readers of this rank's memory are done."""
        left, done_with = self._left, self._done_with
        if not left:
            return True
        while left and done_with[left[-1]] >= self._num_runs:
            left.pop()
        if left:
            self._let_go_on()
        else:
            self.fence()
        return not left


def bytes_with_flags(num_bytes: int, num_ranks: int) -> int:
    """Return how much memory holds `num_bytes` of rows and the numbers behind them."""
    return (-(-num_bytes // _LINE_BYTES) + num_ranks) * _LINE_BYTES


def flags_of(memory: SharedMemory, num_ranks: int) -> memoryview:
    """Return the numbers behind the rows, one for each rank that shares the memory; each clears its own at first."""
    begin = memory.data.size - _LINE_BYTES * num_ranks
    return memory.data[begin:].view(np.int64)[:: _LINE_BYTES // 8].data
