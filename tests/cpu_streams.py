"""Streams and events on the CPU that do their work as late as they may, and know what is ordered before what.

What is enqueued runs when somebody waits for it and not before. Every stream, and every thread, has a clock: how much
of each stream is over before its next step. Memory that several streams use keeps who wrote and read each byte, and
raises where two uses, one of them a write, are in no order, whichever of them runs first.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any, Final

import numpy as np

Clock = dict[int, int]
PATIENCE_S: Final = 200.0

world = threading.Condition(threading.RLock())
_local = threading.local()
_numbers = count(1)
_streams: dict[int, Stream] = {}
_events: dict[int, Event] = {}


class HazardError(AssertionError):
    """Two uses of memory are in no order, a wait came before what it waits for, or a graph holds what it must not."""


class Stream:
    """What is to be done, in order."""

    def __init__(self, non_blocking: bool = False) -> None:
        self.ptr = next(_numbers)
        self.clock: Clock = {}
        self._work: deque[Callable[[], None]] = deque()
        self._busy = False
        self._captured: list[Callable[[Stream], None]] | None = None
        _streams[self.ptr] = self

    def push(self, work: Callable[[], None]) -> Clock:
        """Enqueue work and return the clock that it runs at."""
        self.check("something else than a kernel is enqueued")
        with world:
            _merge(self.clock, _host_clock())
            self.clock[self.ptr] = self.clock.get(self.ptr, 0) + 1
            self._work.append(work)
            world.notify_all()
            return dict(self.clock)

    def begin_capture(self) -> None:
        self.check("a capture begins")
        self._captured = []

    def end_capture(self) -> Graph:
        assert self._captured is not None, "no capture has begun"
        graph, self._captured = Graph(self._captured), None
        return graph

    def launch(self, launch: Callable[[Stream], None]) -> None:
        """Launch a kernel, or keep it for the graph that is being captured."""
        if self._captured is None:
            launch(self)
        else:
            self._captured.append(launch)

    @property
    def captures(self) -> bool:
        return self._captured is not None

    def check(self, what: str) -> None:
        """Raise while a graph is captured."""
        if self._captured is not None:
            raise HazardError(f"{what} while a graph is captured")

    def drain(self, over: Callable[[], bool]) -> None:
        """Work until `over`."""
        with world:
            while not over():
                if not self.step():
                    patiently()

    def step(self) -> bool:
        """Do the next piece of work, the lock held, unless there is none or somebody is at it."""
        if self._busy or not self._work:
            return False
        self._busy = True
        try:
            self._work.popleft()()
        finally:
            self._busy = False
            world.notify_all()
        return True

    def synchronize(self) -> None:
        check("the host waits")
        self.drain(lambda: not self._work and not self._busy)
        _merge(_host_clock(), self.clock)

    def wait_event(self, event: Event) -> None:
        if event.mark is not None:
            event.mark.before(self)

    def __enter__(self) -> Stream:
        self._before, _local.stream = current(), self
        return self

    def __exit__(self, *error: object) -> None:
        _local.stream = self._before


class Graph:
    """Kernels that were captured, with the addresses that they had then."""

    def __init__(self, launches: list[Callable[[Stream], None]]) -> None:
        self.launches = launches

    def launch(self, stream: Stream) -> None:
        for launch in self.launches:
            stream.launch(launch)


class Mark:
    """One record of an event."""

    def __init__(self, stream: Stream) -> None:
        self._stream, self._over = stream, False
        self._clock = stream.push(self._end)

    def _end(self) -> None:
        self._over = True

    def synchronize(self) -> None:
        self._stream.drain(lambda: self._over)
        _merge(_host_clock(), self._clock)

    def before(self, stream: Stream) -> None:
        """Let a stream wait for it."""
        _merge(stream.clock, self._clock)
        stream.push(lambda: self._stream.drain(lambda: self._over))


class Event:
    def __init__(self, disable_timing: bool = False, interprocess: bool = False) -> None:
        assert disable_timing or not interprocess
        self.ptr, self.interprocess = next(_numbers), interprocess
        self.mark: Mark | None = None
        _events[self.ptr] = self

    def record(self, stream: Stream) -> None:
        self.mark = Mark(stream)

    def synchronize(self) -> None:
        check("the host waits for an event")
        if self.mark is not None:
            self.mark.synchronize()


def current() -> Stream:
    if not hasattr(_local, "stream"):
        _local.stream = Stream()
    return _local.stream  # type: ignore[no-any-return]


def check(what: str) -> None:
    """Raise while the current stream captures a graph."""
    current().check(what)


def event_of(ptr: int) -> Event:
    return _events[ptr]


def stream_of(ptr: int) -> Stream:
    return _streams[ptr]


def stream_wait_event(stream: int, event: int, flags: int = 0) -> None:
    """Let a stream wait for an event; one that was never recorded would be no wait at all."""
    mark = _events[event].mark
    if mark is None:
        raise HazardError("a stream waits for an event that nobody has recorded yet")
    mark.before(_streams[stream])


def patiently() -> None:
    """Wait for others to do something, the lock held; streams that wait for each other would do so for ever."""
    if not world.wait(PATIENCE_S):
        raise HazardError("streams wait for each other")


def _host_clock() -> Clock:
    if not hasattr(_local, "clock"):
        _local.clock = {}
    return _local.clock  # type: ignore[no-any-return]


def _merge(into: Clock, other: Clock) -> None:
    with world:
        for stream, step in other.items():
            into[stream] = max(step, into.get(stream, 0))


class Shadow:
    """Who wrote and read each byte of some memory last.

    Args:
        begin: address of the memory.
        num_bytes: of it.
    """

    def __init__(self, begin: int, num_bytes: int) -> None:
        self.begin, self.end = begin, begin + num_bytes
        self._writer, self._written = np.zeros(num_bytes, np.int32), np.zeros(num_bytes, np.int32)
        self._readers: dict[int, Any] = {}

    def use(self, places: Any, writes: bool, stream: int, clock: Clock) -> None:
        """Note a use of the bytes `places`, numbered in this memory.

        Raises:
            HazardError: it is in no order with an earlier one.
        """
        latest = np.array([clock.get(number, 0) for number in range(max(_streams) + 1)])
        if (latest[self._writer[places]] < self._written[places]).any():
            raise HazardError(f"rows are {'written' if writes else 'read'} that may still be written by others")
        if not writes:
            self._readers.setdefault(stream, np.zeros(self.end - self.begin, np.int32))[places] = clock[stream]
            return
        for reader, steps in self._readers.items():
            if (steps[places] > latest[reader]).any():
                raise HazardError("rows are written that may still be read by others")
        self._writer[places], self._written[places] = stream, clock[stream]
