"""An MPI that reads and writes the memory of GPUs, on the CPU: it knows no stream, and does so as late as it may."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sparsecomm.collectives.transport.base import Arrival, Channel, MessageBuffer, Transport
from sparsecomm.collectives.transport.waits import Wait
from tests.cpu_links import Memory
from tests.cpu_streams import Stream, world
from tests.transport_wrappers import Wrapped


class GpuAware(Wrapped):
    """A transport whose messages may lie on a GPU.

    Args:
        inner: the transport.
        memory: that is watched for uses in no order.
    """

    def __init__(self, inner: Transport, memory: Memory) -> None:
        super().__init__(inner)
        self.memory = memory

    def device_refusal(self) -> str:
        return ""

    def open(self, sends: Sequence[MessageBuffer], recvs: Sequence[MessageBuffer]) -> Channel:
        if all(isinstance(message.data, np.ndarray) for message in (*sends, *recvs)):
            return self.inner.open(sends, recvs)
        on_host = [[MessageBuffer(m.peer, m.number, m.data._memory) for m in side] for side in (sends, recvs)]
        return GpuAwareChannel(self.inner.open(*on_host), sends, recvs, self.memory)


class GpuAwareChannel:
    """Uses buffers from the moment a run starts to the moment the host is told that it is over.

    Sends and receives are each what a stream is to the memory: in order with what the host has waited for, and with
    nothing else on the GPU. The bytes move at the end of that time.
    """

    def __init__(
        self, inner: Channel, sends: Sequence[MessageBuffer], recvs: Sequence[MessageBuffer], memory: Memory
    ) -> None:
        self._inner, self._sends, self._recvs, self._memory = inner, sends, recvs, memory
        self._sending, self._receiving = Stream(), Stream()
        self._late: list[int] = []
        self._left = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def start(self, posts: tuple[int, ...] = ()) -> None:
        self._left = len(self._recvs)
        self._use(self._recvs, self._receiving, writes=True)
        self._inner.start()
        for index in posts:
            self.post(index)

    def post(self, index: int, num_bytes: int | None = None) -> None:
        self._use([self._sends[index]], self._sending, writes=False)
        self._late.append(index)

    def test(self) -> list[Arrival]:
        return self._told(self._going().test())

    def wait(self, wait: Wait, *, all_at_once: bool = False) -> list[Arrival]:
        return self._told(self._going().wait(wait))

    def finish(self, wait: Wait) -> None:
        self._going().finish(wait)
        self._sending.synchronize()

    def swap(self, posts: tuple[int, ...]) -> None:
        """Refuse, so that runs are made of the calls above."""

    def _going(self) -> Channel:
        """Return the channel, its messages sent: MPI may go on whenever it is called."""
        while self._late:
            self._inner.post(self._late.pop())
        return self._inner

    def _told(self, arrivals: list[Arrival]) -> list[Arrival]:
        self._left -= len(arrivals)
        if not self._left:
            self._receiving.synchronize()
        return arrivals

    def _use(self, messages: Sequence[MessageBuffer], stream: Stream, writes: bool) -> None:
        with world:
            clock = stream.push(lambda: None)
            for message in messages:
                begin = np.array([message.data.data.ptr])
                self._memory.use(begin, message.data.nbytes, writes, stream.ptr, clock)
