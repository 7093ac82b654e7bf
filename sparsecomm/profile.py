"""What the exchanges and products of one rank did, and when: exact totals, and the latest spans in a ring."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any, Final, TypeVar

import numpy as np

from sparsecomm.typing import IntGlobal

T = TypeVar("T")

VARIABLE: Final = "SPARSECOMM_PROFILE"
CAPACITY: Final = 1 << 16  # spans of a rank: a tuple of six small numbers takes about 200 bytes
clock: Final = time.perf_counter_ns

SEND, RECV = 0, 1
# Columns of the table of messages of one rank, one row for each message of each track.
COLUMNS: Final = (
    "track",  # which direction of which exchange
    "side",  # SEND or RECV
    "stage",
    "level",
    "peer",
    "rows",  # of one message, as planned
    "ends",  # of these, rows that a SEND takes from the slots given to a run, or a RECV leaves in its result
    "count",  # how often it was sent or came
    "bytes",  # handed to the transport, or what it says came, in all; 0 where rows are read where they lie
    "copy_ns",  # in packing or unpacking
    "wait_ns",  # SEND: in handing it to the transport; RECV: in waiting for just this one
)


class Kind(IntEnum):
    """What a span is about. Its `index` numbers the sends or the receives of its track, or the products by name."""

    PACK = 0
    POST = 1
    WAIT = 2  # until message `index` came
    UNPACK = 3
    DRAIN = 4  # until what was sent is out of the buffers; no index
    LAND = 5  # a moment: message `index` has come
    RUN = 6  # from the start of a run to its end; no index
    PRODUCT = 7


@dataclass(frozen=True, slots=True)
class TrackFacts:
    """What a track is about.

    Args:
        name: of the plan, such as `gather`; may be empty.
        direction: `forwards` or `in reverse`.
        fingerprint: of the plan, 16 hexadecimal digits.
        width, dtype: of the rows.
        row_bytes: bytes of a row on the wire, by level.
    """

    name: str
    direction: str
    fingerprint: str
    width: int
    dtype: str
    row_bytes: tuple[int, ...]


class Track:
    """The messages of one direction of one exchange: how often each moved and what it cost.

    Args:
        recorder: that it belongs to.
        facts: what it is about.
        sends, recvs: (num_messages, 5) int64: stage, level, peer, rows, ends; see `COLUMNS`.
    """

    def __init__(self, recorder: Recorder, facts: TrackFacts, sends: IntGlobal, recvs: IntGlobal) -> None:
        self.recorder, self.facts, self._messages = recorder, facts, (sends, recvs)
        self._number, self._spans = recorder.num_tracks, recorder.spans
        self._count = [[0] * len(side) for side in self._messages]
        self._copy_ns = [[0] * len(side) for side in self._messages]
        self._wait_ns = [[0] * len(side) for side in self._messages]
        self._num_bytes = [[0] * len(side) for side in self._messages]
        self._idle_since = 0  # 0 where the rank is not blocked in a wait for a run of this track
        self._blocked_since = 0
        self.num_runs = self.run_ns = self.blocked_ns = self.drain_ns = 0

    def begin(self) -> int:
        """Return the number of the run that begins."""
        self.num_runs += 1
        return self.num_runs - 1

    def sent(self, index: int, run: int, began: int, packed: int, num_bytes: int) -> None:
        """A message was packed from `began` to `packed`, and handed to the transport until now."""
        now = clock()
        self._count[SEND][index] += 1
        self._num_bytes[SEND][index] += num_bytes
        self._copy_ns[SEND][index] += packed - began
        self._wait_ns[SEND][index] += now - packed
        self._add(Kind.PACK, index, run, began, packed)
        self._add(Kind.POST, index, run, packed, now)
        self._go_on_idling(now)

    def landed(self, index: int, run: int, num_bytes: int) -> None:
        """A message has come, just now or while the rank did something else."""
        now = clock()
        self._count[RECV][index] += 1
        self._num_bytes[RECV][index] += num_bytes
        if self._idle_since:
            self._wait_ns[RECV][index] += now - self._idle_since
            self._add(Kind.WAIT, index, run, self._idle_since, now)
        self._add(Kind.LAND, index, run, now, now)
        self._go_on_idling(now)

    def unpacked(self, index: int, run: int, began: int) -> None:
        """A message was taken in from `began` until now."""
        now = clock()
        self._copy_ns[RECV][index] += now - began
        self._add(Kind.UNPACK, index, run, began, now)
        self._go_on_idling(now)

    def block(self) -> None:
        """The rank does nothing from now on but wait."""
        self._blocked_since = self._idle_since = clock()

    def unblock(self, run: int, began: int) -> None:
        """A run that began at `began` is complete."""
        now = clock()
        self.blocked_ns += now - self._blocked_since
        self.run_ns += now - began
        self.drain_ns += now - self._idle_since
        self._add(Kind.DRAIN, -1, run, self._idle_since, now)
        self._add(Kind.RUN, -1, run, began, now)
        self._idle_since = 0

    def table(self) -> IntGlobal:
        """Return (num_messages, len(COLUMNS)) int64."""
        return np.concatenate([self._side(side) for side in (SEND, RECV)])

    def to_json(self) -> dict[str, Any]:
        """Return what is known of the track as a whole."""
        totals = {name: getattr(self, name) for name in ("num_runs", "run_ns", "blocked_ns", "drain_ns")}
        return asdict(self.facts) | totals

    def _side(self, side: int) -> IntGlobal:
        given = self._messages[side]
        table = np.empty((len(given), len(COLUMNS)), dtype=np.int64)
        table[:, 0], table[:, 1], table[:, 2:7] = self._number, side, given
        table[:, 7], table[:, 8] = self._count[side], self._num_bytes[side]
        table[:, 9], table[:, 10] = self._copy_ns[side], self._wait_ns[side]
        return table

    def _go_on_idling(self, now: int) -> None:
        if self._idle_since:
            self._idle_since = now

    def _add(self, kind: Kind, index: int, run: int, began: int, ended: int) -> None:
        self._spans.append((kind, self._number, index, run, began, ended))
        self.recorder.num_spans += 1


@dataclass(frozen=True, slots=True, eq=False)
class CountedTrack:
    """Messages that were only counted, by peer: those of a program that does not use this library.

    Args:
        name: of the track.
        number: of the track on its rank.
        level, peer: (num_peers,) int64.
        count, num_bytes: (num_peers,) int64, messages and bytes that were handed over for each peer.
    """

    name: str
    number: int
    level: IntGlobal
    peer: IntGlobal
    count: IntGlobal
    num_bytes: IntGlobal

    def table(self) -> IntGlobal:
        """Return (num_peers, len(COLUMNS)) int64."""
        table = np.zeros((self.peer.size, len(COLUMNS)), dtype=np.int64)
        table[:, 0], table[:, 1] = self.number, SEND
        table[:, 3], table[:, 4], table[:, 7], table[:, 8] = self.level, self.peer, self.count, self.num_bytes
        return table

    def to_json(self) -> dict[str, Any]:
        """Return what `Track.to_json` does."""
        facts = TrackFacts(self.name, "", "", 1, "uint8", ())
        return asdict(facts) | {"num_runs": 1, "run_ns": 0, "blocked_ns": 0, "drain_ns": 0}


class Recorder:
    """What one rank records while it is the active one of its thread.

    Args:
        rank, num_ranks: exchanges between other ranks are not recorded.
        capacity: spans that are kept, the latest; totals are kept of all.
    """

    def __init__(self, rank: int, num_ranks: int, capacity: int = CAPACITY) -> None:
        self.rank, self.num_ranks, self.capacity = rank, num_ranks, capacity
        self.tracks: list[Track | CountedTrack] = []
        self.spans: deque[tuple[int, int, int, int, int, int]] = deque(maxlen=capacity)
        self.num_spans = 0
        self.products: dict[str, list[int]] = {}  # name -> [its number, times, nanoseconds]

    @property
    def num_tracks(self) -> int:
        return len(self.tracks)

    def track(self, facts: TrackFacts, sends: IntGlobal, recvs: IntGlobal) -> Track:
        """Return a new track."""
        track = Track(self, facts, sends, recvs)
        self.tracks.append(track)
        return track

    def product(self, name: str) -> _Timed:
        """Return a context in which a block is multiplied."""
        return _Timed(self, name)

    def chunks(self, name: str, steps: Iterator[T]) -> Iterator[T]:
        """Yield what `steps` yields: pieces of a product, whose time is without that of the loop around them."""
        began, spent_ns, mark = clock(), 0, clock()
        for step in steps:
            spent_ns += clock() - mark
            yield step
            mark = clock()
        self.multiplied(name, began, spent_ns + clock() - mark)

    def multiplied(self, name: str, began: int, spent_ns: int = 0) -> None:
        """A block was multiplied from `began` until now, and all the time unless `spent_ns` says less."""
        now = clock()
        totals = self.products.setdefault(name, [len(self.products), 0, 0])
        totals[1] += 1
        totals[2] += spent_ns or now - began
        self.spans.append((Kind.PRODUCT, -1, totals[0], totals[1] - 1, began, now))
        self.num_spans += 1


class _Timed:
    def __init__(self, recorder: Recorder, name: str) -> None:
        self._recorder, self._name = recorder, name

    def __enter__(self) -> None:
        self._began = clock()

    def __exit__(self, *error: object) -> None:
        self._recorder.multiplied(self._name, self._began)


class _Off:
    """Stands for a recorder where nothing is recorded."""

    def product(self, name: str) -> _Off:
        return self

    def chunks(self, name: str, steps: Iterator[T]) -> Iterator[T]:
        return steps

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        pass


_OFF: Final = _Off()
_here = threading.local()


def active() -> Recorder | None:
    """Return the recorder of this thread, which is a rank, if it has one."""
    return getattr(_here, "recorder", None)


def products() -> Recorder | _Off:
    """Return what takes the time of products, whether anything is recorded or not."""
    return active() or _OFF


def activate(recorder: Recorder | None) -> Recorder | None:
    """Make `recorder`, or none, the active one of this thread, and return the one that was."""
    before = active()
    _here.recorder = recorder
    return before
