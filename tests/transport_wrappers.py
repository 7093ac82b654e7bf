"""Transports that misbehave on purpose, around any real one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from sparsecomm.collectives.transport.base import Arrival, Channel, MessageBuffer, Swap, Transport
from sparsecomm.collectives.transport.waits import Wait


class Wrapped:
    """A transport that is `inner`, but for the channels it opens."""

    def __init__(self, inner: Transport) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def duplicate(self, num_shared: int | None = None) -> Wrapped:
        copy = type(self).__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy.inner = self.inner.duplicate(num_shared)
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

    def wait(self, wait: Wait, *, all_at_once: bool = False) -> list[Arrival]:
        while not (arrivals := self.test()):
            if not self.held:
                self.held += self.inner.wait(wait)
        return arrivals

    def swap(self, posts: tuple[int, ...]) -> None:
        """Refuse, so that runs are made of the calls above."""


class Lossy(Wrapped):
    """Spoils the first message from one rank to another, in every channel opened while `armed` is not empty.

    Args:
        inner: the transport.
        src, dst: the ranks.
        how: `never` sends nothing at all; `empty` sends no bytes and `short` one row less; `stale` sends no bytes
            either, and at the receiver says that all came.
        armed: shared by all duplicates, to be emptied or filled by the test.
    """

    def __init__(
        self, inner: Transport, src: int, dst: int, how: str = "empty", armed: list[bool] | None = None
    ) -> None:
        super().__init__(inner)
        self.src, self.dst, self.how = src, dst, how
        self.armed = [True] if armed is None else armed

    def open(self, sends: Sequence[MessageBuffer], recvs: Sequence[MessageBuffer]) -> Channel:
        if not self.armed:
            return self.inner.open(sends, recvs)
        lost = self._find(sends, self.src, self.dst)
        faked = self._find(recvs, self.dst, self.src) if self.how == "stale" else None
        kept = list(sends)
        if lost is not None and self.how != "never":
            message = sends[lost]
            kept[lost] = MessageBuffer(message.peer, message.number, message.data[: -1 if self.how == "short" else 0])
        unsent = lost if self.how == "never" else None
        return LossyChannel(self.inner.open(kept, recvs), unsent, faked, [m.data.nbytes for m in recvs])

    def _find(self, messages: Sequence[MessageBuffer], here: int, peer: int) -> int | None:
        return next((i for i, m in enumerate(messages) if (self.inner.rank, m.peer) == (here, peer)), None)


class LossyChannel:
    def __init__(self, inner: Channel, unsent: int | None, faked: int | None, sizes: Sequence[int]) -> None:
        self.inner, self.unsent, self.faked, self.sizes = inner, unsent, faked, sizes

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def start(self, posts: tuple[int, ...] = ()) -> None:
        self.inner.start()
        for index in posts:
            self.post(index)

    def post(self, index: int, num_bytes: int | None = None) -> None:
        if index != self.unsent:
            self.inner.post(index, num_bytes)

    def test(self) -> list[Arrival]:
        return self._told(self.inner.test())

    def wait(self, wait: Wait, *, all_at_once: bool = False) -> list[Arrival]:
        return self._told(self.inner.wait(wait))

    def swap(self, posts: tuple[int, ...]) -> Swap | None:
        return self.inner.swap(posts) if self.unsent is None and self.faked is None else None

    def _told(self, arrivals: list[Arrival]) -> list[Arrival]:
        return [Arrival(m, self.sizes[m] if m == self.faked else size) for m, size in arrivals]


class Posts(Wrapped):
    """Notes the peers that messages are posted to, in order."""

    def __init__(self, inner: Transport) -> None:
        super().__init__(inner)
        self.peers: list[int] = []

    def open(self, sends: Sequence[MessageBuffer], recvs: Sequence[MessageBuffer]) -> Channel:
        return PostsChannel(self.inner.open(sends, recvs), sends, self.peers)


class PostsChannel:
    def __init__(self, inner: Channel, sends: Sequence[MessageBuffer], peers: list[int]) -> None:
        self.inner, self.sends, self.peers = inner, sends, peers

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def start(self, posts: tuple[int, ...] = ()) -> None:
        self.inner.start()
        for number in posts:
            self.post(number)

    def post(self, number: int) -> None:
        self.peers.append(self.sends[number].peer)
        self.inner.post(number)

    def swap(self, posts: tuple[int, ...]) -> None:
        """Refuse, so that runs are made of the calls above."""


class Short(Wrapped):
    """Says of the last arrival of every run that is one call that a byte of it is missing."""

    def open(self, sends: Sequence[MessageBuffer], recvs: Sequence[MessageBuffer]) -> Channel:
        return ShortChannel(self.inner.open(sends, recvs))


class ShortChannel:
    def __init__(self, inner: Channel) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def swap(self, posts: tuple[int, ...]) -> Swap | None:
        swap = self.inner.swap(posts)
        return None if swap is None else lambda make_wait: self._cut(swap(make_wait))

    def _cut(self, arrivals: Sequence[Arrival]) -> list[Arrival]:
        *others, (message, size) = arrivals
        return [*others, Arrival(message, size - 1)]


class Slow(Wrapped):
    """On odd ranks looks away for a while after the messages of a run that is one call have come."""

    def open(self, sends: Sequence[MessageBuffer], recvs: Sequence[MessageBuffer]) -> Channel:
        made = self.inner.open(sends, recvs)
        return SlowChannel(made) if self.inner.rank % 2 else made


class SlowChannel(ShortChannel):
    def _cut(self, arrivals: Sequence[Arrival]) -> list[Arrival]:
        time.sleep(1e-3)
        return list(arrivals)
