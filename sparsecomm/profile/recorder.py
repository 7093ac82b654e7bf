"""What one rank records: notes of what happens, made into exact totals and the latest spans in a ring."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import chain
from typing import Final, TypeVar

import numpy as np

from sparsecomm.profile.track import (
    BLOCKED,
    DONE,
    MADE,
    NO_TRACK,
    NOTE,
    SENT,
    UNPACKED,
    AnyTrack,
    Kind,
    Ranges,
    Track,
    TrackFacts,
    clock,
    no_spans,
)
from sparsecomm.typing import IntGlobal

T = TypeVar("T")

CAPACITY: Final = 1 << 16  # spans of a rank, six numbers each
_MOST_NOTED: Final = NOTE << 15  # numbers: about 5 MB


class Recorder:
    """What one rank records while it is the active one of its thread.

    What happens is only noted, as a few numbers, and made into totals and spans later, many at a time: code that runs
    once in a product finds the caches cold, and then costs several times what it costs in a loop. Notes are no objects
    of Python's, so that its garbage collector has no more to do than without a recorder.

    Args:
        rank, num_ranks: exchanges between other ranks are not recorded.
        capacity: spans that are kept, the latest; totals are kept of all.
        ranges: are told of products, runs and waits as they begin and end.
    """

    def __init__(self, rank: int, num_ranks: int, capacity: int = CAPACITY, ranges: Ranges | None = None) -> None:
        self.rank, self.num_ranks, self.capacity, self.ranges = rank, num_ranks, capacity, ranges
        self.tracks: list[AnyTrack] = []
        self._notes: list[int] = []
        self.note = self._notes.extend
        self._kept: deque[IntGlobal] = deque()
        self._num_kept = self._num_spans = 0
        self._blocked_since = self._last_ns = 0  # blocked since 0: not at all
        self._timed: dict[str, _Timed] = {}
        self._products = np.zeros((0, 2), dtype=np.int64)  # times, nanoseconds

    @property
    def num_tracks(self) -> int:
        return len(self.tracks)

    @property
    def spans(self) -> IntGlobal:
        """(num_kept, 6) int64, the latest: kind, track, index, run, begin and end in nanoseconds."""
        self.digest()
        found = np.concatenate([np.empty((0, 6), dtype=np.int64), *self._kept])
        return found[max(0, len(found) - self.capacity) :]

    @property
    def num_spans(self) -> int:
        """How many spans there were."""
        self.digest()
        return self._num_spans

    @property
    def products(self) -> dict[str, tuple[int, int]]:
        """Name of a product -> how often it was made, and nanoseconds in all."""
        self.digest()
        return {name: (int(times), int(ns)) for name, (times, ns) in zip(self._timed, self._products, strict=False)}

    def digest(self) -> None:
        """Make what was noted into totals and spans."""
        notes = np.array(self._notes, dtype=np.int64).reshape(-1, NOTE)
        self._notes.clear()
        if not len(notes):
            return
        idle, blocked = self._waiting(notes)
        spans, track = no_spans(len(notes)), notes[:, 1]
        for number, one in enumerate(self.tracks):
            mine = np.flatnonzero(track == number)
            if mine.size and isinstance(one, Track):
                spans[mine] = one.digest(notes[mine], idle[mine], blocked[mine])
        mine = np.flatnonzero(track == NO_TRACK)
        spans[mine, 0] = self._digest_products(notes, mine)
        self._keep(spans[spans[:, :, 0] >= 0])

    def digest_some(self) -> None:
        """Do so where there is much."""
        if len(self._notes) >= _MOST_NOTED:
            self.digest()

    def track(self, facts: TrackFacts, sends: IntGlobal, recvs: IntGlobal) -> Track:
        """Return a new track."""
        track = Track(self, facts, sends, recvs)
        self.tracks.append(track)
        return track

    def product(self, name: str) -> _Timed:
        """Return a context in which a block is multiplied."""
        timed = self._timed.get(name)
        if timed is None:
            timed = self._timed[name] = _Timed(self, name, len(self._timed))
        return timed

    def chunks(self, name: str, steps: Iterator[T]) -> Iterator[T]:
        """Return what yields as `steps` does: pieces of a product that messages are packed and unpacked between."""
        opened = self.ranges.begin(f"product {name}") if self.ranges else None
        return chain(steps, self._after_chunks(self.product(name), clock(), opened))

    def _after_chunks(self, timed: _Timed, began: int, opened: object) -> Iterator[T]:
        """Note the end of a product in pieces; yield nothing."""
        timed.multiplied(began)
        if self.ranges:
            self.ranges.end(opened)
        yield from ()

    def _waiting(self, notes: IntGlobal) -> tuple[IntGlobal, IntGlobal]:
        """Return for every note since when the rank has been idle in a wait, and since when it has been in the wait.

        0 where it is not in one. It is idle since the last note: whatever comes then is what it waited for.
        """
        what, now, places = notes[:, 0], notes[:, 6], np.arange(len(notes))
        turns = np.where((what == BLOCKED) | (what == DONE), places, -1)
        turn = np.concatenate([[-1], np.maximum.accumulate(turns)])  # the last one before each note, and at the end
        since = np.where(turn < 0, self._blocked_since, np.where(what[turn] == BLOCKED, now[turn], 0))
        last = np.concatenate([[self._last_ns], now])
        idle = np.where(since > 0, last, 0)
        self._blocked_since, self._last_ns = int(since[-1]), int(last[-1])
        return idle[:-1], since[:-1]

    def _digest_products(self, every: IntGlobal, places: IntGlobal) -> IntGlobal:
        """Add the notes of products at `places` to the totals, and return a span for each.

        The time of a product is without that of the messages that were packed and unpacked meanwhile.
        """
        what, _, _, _, began, _, now, _ = every.T
        moving = np.where((what == SENT) | (what == UNPACKED), now - began, 0)
        so_far = np.concatenate([[0], np.cumsum(moving)])
        notes = every[places]
        _, _, index, _, began, _, now, _ = notes.T
        spent_ns = now - began - (so_far[places] - so_far[np.searchsorted(every[:, 6], began)])
        more = np.zeros((len(self._timed) - len(self._products), 2), dtype=np.int64)
        self._products = np.concatenate([self._products, more])
        run = np.empty_like(index)
        for number in range(len(self._products)):
            mine = np.flatnonzero(index == number)
            run[mine] = self._products[number, 0] + np.arange(mine.size)
            self._products[number] += (mine.size, int(spent_ns[mine].sum()))
        same = np.full((2, len(notes)), [[Kind.PRODUCT], [NO_TRACK]])
        return np.stack([*same, index, run, began, now], axis=1)

    def _keep(self, spans: IntGlobal) -> None:
        """Add spans; the oldest go where there are too many."""
        self._kept.append(spans)
        self._num_spans += len(spans)
        self._num_kept += len(spans)
        while self._num_kept - len(self._kept[0]) >= self.capacity:
            self._num_kept -= len(self._kept.popleft())


class _Timed:
    """A product by its name: times what happens inside its `with`."""

    def __init__(self, recorder: Recorder, name: str, number: int) -> None:
        self._recorder, self._name, self._number = recorder, name, number

    def __enter__(self) -> None:
        ranges = self._recorder.ranges
        self._opened = ranges.begin(f"product {self._name}") if ranges else None
        self._began = clock()

    def __exit__(self, *error: object) -> None:
        self.multiplied(self._began)
        if self._recorder.ranges:
            self._recorder.ranges.end(self._opened)

    def multiplied(self, began: int) -> None:
        """A block was multiplied from `began` until now."""
        self._recorder.note((MADE, NO_TRACK, self._number, 0, began, 0, clock(), 0))
        self._recorder.digest_some()
