"""Transports that misbehave on purpose, around any real one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sparsecomm.collectives.transport.base import Arrival, Channel, MessageBuffer, Transport


class Wrapped:
    """A transport that is `inner`, but for the channels it opens."""

    def __init__(self, inner: Transport) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def duplicate(self) -> Wrapped:
        copy = type(self).__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy.inner = self.inner.duplicate()
        return copy


class Late(Wrapped):
    """Holds arrivals back for a random while and hands them over in random order."""

    def __init__(self, inner: Transport, seed: int) -> None:
        super().__init__(inner)
        self.rng = np.random.default_rng([seed, inner.rank])

    def open(self, sends: Sequence[MessageBuffer], recvs: Sequence[MessageBuffer]) -> Channel:
        return LateChannel(self.inner.open(sends, recvs), self.rng)


class LateChannel:
    def __init__(self, inner: Channel, rng: np.random.Generator) -> None:
        self.inner, self.rng = inner, rng
        self.held: list[Arrival] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def test(self) -> list[Arrival]:
        self.held += self.inner.test()
        now = [arrival for arrival in self.held if self.rng.random() < 0.3]
        self.held = [arrival for arrival in self.held if arrival not in now]
        return [now[i] for i in self.rng.permutation(len(now))]

    def wait(self) -> list[Arrival]:
        while not (arrivals := self.test()):
            if not self.held:
                self.held += self.inner.wait()
        return arrivals


class Lossy(Wrapped):
    """Sends nothing in place of the first message from one rank to another."""

    def __init__(self, inner: Transport, src: int, dst: int) -> None:
        super().__init__(inner)
        self.src, self.dst = src, dst

    def open(self, sends: Sequence[MessageBuffer], recvs: Sequence[MessageBuffer]) -> Channel:
        lost = next((m for m in sends if (self.inner.rank, m.peer) == (self.src, self.dst)), None)
        kept = [MessageBuffer(m.peer, m.number, m.data[:0]) if m is lost else m for m in sends]
        return self.inner.open(kept, recvs)
