"""What the exchanges and products of one rank did, and when: exact totals, and the latest spans in a ring."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any, Final, Protocol, TypeVar

import numpy as np

from sparsecomm.typing import IntGlobal

T = TypeVar("T")

VARIABLE: Final = "SPARSECOMM_PROFILE"
CAPACITY: Final = 1 << 16  # spans of a rank: a tuple of six small numbers takes about 200 bytes
_MOST_UNDIGESTED: Final = 1 << 9
clock: Final = time.perf_counter_ns
Span = tuple[int, int, int, int, int, int]
"""Kind, track, index, run, begin and end."""

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


class Ranges(Protocol):
    """Tells a profiler of another maker what goes on."""

    def begin(self, name: str) -> object:
        """Begin a range and return what `end` needs."""

    def end(self, handle: object) -> None:
        """End a range."""


class Track:
    """The messages of one direction of one exchange: how often each moved and what it cost.

    Args:
        recorder: that it belongs to.
        facts: what it is about.
        sends, recvs: (num_messages, 5) int64: stage, level, peer, rows, ends; see `COLUMNS`.
    """

    def __init__(self, recorder: Recorder, facts: TrackFacts, sends: IntGlobal, recvs: IntGlobal) -> None:
        self.recorder, self.facts, self._messages = recorder, facts, (sends, recvs)
        self._number, self._later = recorder.num_tracks, recorder.later
        self._count = [[0] * len(side) for side in self._messages]
        self._copy_ns = [[0] * len(side) for side in self._messages]
        self._wait_ns = [[0] * len(side) for side in self._messages]
        self._num_bytes = [[0] * len(side) for side in self._messages]
        self._idle_since = 0  # 0 where the rank is not blocked in a wait for a run of this track
        self._blocked_since = 0
        self.num_runs = self.run_ns = self.blocked_ns = self.drain_ns = 0
        self._ranges, self._label = recorder.ranges, f"{facts.name} {facts.direction}".strip()
        self._open_runs: dict[int, object] = {}
        self._open_wait: object = None

    def begin(self) -> int:
        """Return the number of the run that begins."""
        self.num_runs += 1
        if self._ranges is not None:
            self._open_runs[self.num_runs - 1] = self._ranges.begin(self._label)
        return self.num_runs - 1

    def sent(self, index: int, run: int, began: int, packed: int, num_bytes: int) -> None:
        """A message was packed from `began` to `packed`, and handed to the transport until now."""
        self._later((self._sent, index, run, began, packed, num_bytes, clock()))

    def landed(self, index: int, run: int, num_bytes: int) -> None:
        """A message has come, just now or while the rank did something else."""
        self._later((self._landed, index, run, num_bytes, clock()))

    def unpacked(self, index: int, run: int, began: int) -> None:
        """A message was taken in from `began` until now."""
        self._later((self._unpacked, index, run, began, clock()))

    def block(self) -> None:
        """The rank does nothing from now on but wait."""
        self._later((self._block, clock()))
        if self._ranges is not None:
            self._open_wait = self._ranges.begin(f"wait for {self._label}")

    def unblock(self, run: int, began: int) -> None:
        """A run that began at `began` is complete."""
        self._later((self._unblock, run, began, clock()))
        self.recorder.digest_some()
        if self._ranges is not None:
            self._ranges.end(self._open_wait)
            self._ranges.end(self._open_runs.pop(run))

    def _sent(self, index: int, run: int, began: int, packed: int, num_bytes: int, now: int) -> None:
        self._count[SEND][index] += 1
        self._num_bytes[SEND][index] += num_bytes
        self._copy_ns[SEND][index] += packed - began
        self._wait_ns[SEND][index] += now - packed
        self._add(Kind.PACK, index, run, began, packed)
        self._add(Kind.POST, index, run, packed, now)
        self._go_on_idling(now)

    def _landed(self, index: int, run: int, num_bytes: int, now: int) -> None:
        self._count[RECV][index] += 1
        self._num_bytes[RECV][index] += num_bytes
        if self._idle_since:
            self._wait_ns[RECV][index] += now - self._idle_since
            self._add(Kind.WAIT, index, run, self._idle_since, now)
        self._add(Kind.LAND, index, run, now, now)
        self._go_on_idling(now)

    def _unpacked(self, index: int, run: int, began: int, now: int) -> None:
        self._copy_ns[RECV][index] += now - began
        self._add(Kind.UNPACK, index, run, began, now)
        self._go_on_idling(now)

    def _block(self, now: int) -> None:
        self._blocked_since = self._idle_since = now

    def _unblock(self, run: int, began: int, now: int) -> None:
        self.blocked_ns += now - self._blocked_since
        self.run_ns += now - began
        self.drain_ns += now - self._idle_since
        self._add(Kind.DRAIN, -1, run, self._idle_since, now)
        self._add(Kind.RUN, -1, run, began, now)
        self._idle_since = 0

    def table(self) -> IntGlobal:
        """Return (num_messages, len(COLUMNS)) int64."""
        self.recorder.digest()
        return np.concatenate([self._side(side) for side in (SEND, RECV)])

    def to_json(self) -> dict[str, Any]:
        """Return what is known of the track as a whole."""
        self.recorder.digest()
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
        self.recorder.keep((kind, self._number, index, run, began, ended))


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

    What happens is only put on a list, and made into totals and spans later, many at a time: code that runs once in a
    product finds the caches cold, and then costs several times what it costs in a loop.

    Args:
        rank, num_ranks: exchanges between other ranks are not recorded.
        capacity: spans that are kept, the latest; totals are kept of all.
        ranges: are told of products, runs and waits as they begin and end.
    """

    def __init__(self, rank: int, num_ranks: int, capacity: int = CAPACITY, ranges: Ranges | None = None) -> None:
        self.rank, self.num_ranks, self.capacity, self.ranges = rank, num_ranks, capacity, ranges
        self.tracks: list[Track | CountedTrack] = []
        self._spans: deque[Span] = deque(maxlen=capacity)
        self._num_spans = 0
        self._products: dict[str, list[int]] = {}  # name -> [its number, times, nanoseconds]
        self._undigested: list[tuple[Any, ...]] = []  # what to call, and with what
        self.later = self._undigested.append

    @property
    def num_tracks(self) -> int:
        return len(self.tracks)

    @property
    def spans(self) -> deque[Span]:
        """The latest spans: kind, track, index, run, begin and end in nanoseconds."""
        self.digest()
        return self._spans

    @property
    def num_spans(self) -> int:
        """How many spans there were."""
        self.digest()
        return self._num_spans

    @property
    def products(self) -> dict[str, list[int]]:
        """Name of a product -> its number, how often it was made, nanoseconds in all."""
        self.digest()
        return self._products

    def digest(self) -> None:
        """Make what was put on the list into totals and spans."""
        for call, *arguments in self._undigested:
            call(*arguments)
        self._undigested.clear()

    def digest_some(self) -> None:
        """Do so where the list is long."""
        if len(self._undigested) >= _MOST_UNDIGESTED:
            self.digest()

    def keep(self, span: Span) -> None:
        """Add a span; the oldest goes where there are too many."""
        self._spans.append(span)
        self._num_spans += 1

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
        opened = self.ranges.begin(f"product {name}") if self.ranges else None
        began, spent_ns, mark = clock(), 0, clock()
        for step in steps:
            spent_ns += clock() - mark
            yield step
            mark = clock()
        self.multiplied(name, began, spent_ns + clock() - mark)
        if self.ranges:
            self.ranges.end(opened)

    def multiplied(self, name: str, began: int, spent_ns: int = 0) -> None:
        """A block was multiplied from `began` until now, and all the time unless `spent_ns` says less."""
        self.later((self._multiplied, name, began, spent_ns, clock()))
        self.digest_some()

    def _multiplied(self, name: str, began: int, spent_ns: int, now: int) -> None:
        totals = self._products.setdefault(name, [len(self._products), 0, 0])
        totals[1] += 1
        totals[2] += spent_ns or now - began
        self.keep((Kind.PRODUCT, -1, totals[0], totals[1] - 1, began, now))


class _Timed:
    def __init__(self, recorder: Recorder, name: str) -> None:
        self._recorder, self._name = recorder, name

    def __enter__(self) -> None:
        ranges = self._recorder.ranges
        self._opened = ranges.begin(f"product {self._name}") if ranges else None
        self._began = clock()

    def __exit__(self, *error: object) -> None:
        self._recorder.multiplied(self._name, self._began)
        if self._recorder.ranges:
            self._recorder.ranges.end(self._opened)


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
