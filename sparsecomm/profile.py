"""What the exchanges and products of one rank did, and when: exact totals, and the latest spans in a ring."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import IntEnum
from itertools import chain
from typing import Any, Final, Protocol, TypeVar

import numpy as np

from sparsecomm.typing import IntGlobal

T = TypeVar("T")

VARIABLE: Final = "SPARSECOMM_PROFILE"
CAPACITY: Final = 1 << 16  # spans of a rank, six numbers each
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


# Notes: what, track, index, run, when it began, when it was packed, now, bytes; now never decreases.
_NOTE: Final = 8
_MOST_NOTED: Final = _NOTE << 15  # numbers: about 5 MB
_SENT, _LANDED, _UNPACKED, _BLOCKED, _DONE, _MADE = range(6)
_NO_TRACK: Final = -1


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
        self._number, self._note = recorder.num_tracks, recorder.note
        self._totals = [np.zeros((len(side), 4), dtype=np.int64) for side in self._messages]  # the last of `COLUMNS`
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
        self._note((_SENT, self._number, index, run, began, packed, clock(), num_bytes))

    def landed(self, index: int, run: int, num_bytes: int) -> None:
        """A message has come, just now or while the rank did something else."""
        self._note((_LANDED, self._number, index, run, 0, 0, clock(), num_bytes))

    def unpacked(self, index: int, run: int, began: int) -> None:
        """A message was taken in from `began` until now."""
        self._note((_UNPACKED, self._number, index, run, began, 0, clock(), 0))

    def block(self) -> None:
        """The rank does nothing from now on but wait."""
        self._note((_BLOCKED, self._number, 0, 0, 0, 0, clock(), 0))
        if self._ranges is not None:
            self._open_wait = self._ranges.begin(f"wait for {self._label}")

    def unblock(self, run: int, began: int) -> None:
        """A run that began at `began` is complete."""
        self._note((_DONE, self._number, 0, run, began, 0, clock(), 0))
        self.recorder.digest_some()
        if self._ranges is not None:
            self._ranges.end(self._open_wait)
            self._ranges.end(self._open_runs.pop(run))

    def table(self) -> IntGlobal:
        """Return (num_messages, len(COLUMNS)) int64."""
        self.recorder.digest()
        return np.concatenate([self._side(side) for side in (SEND, RECV)])

    def to_json(self) -> dict[str, Any]:
        """Return what is known of the track as a whole."""
        self.recorder.digest()
        totals = {name: getattr(self, name) for name in ("num_runs", "run_ns", "blocked_ns", "drain_ns")}
        return asdict(self.facts) | totals

    def digest(self, notes: IntGlobal, idle: IntGlobal, blocked: IntGlobal) -> IntGlobal:
        """Add notes of this track to the totals, and return their spans.

        Args:
            notes: (num_notes, _NOTE) int64, in the order in which they were made.
            idle, blocked: (num_notes,) int64, since when the rank was idle in a wait, and in the wait; 0 in none.

        Returns:
            (num_notes, 2, 6) int64: at most two spans for each, -1 where there are none.
        """
        what, _, index, run, began, packed, now, num_bytes = notes.T
        sent, landed, unpacked, done = (np.flatnonzero(what == one) for one in (_SENT, _LANDED, _UNPACKED, _DONE))
        waited = landed[idle[landed] > 0]
        waits = np.where(idle > 0, now - idle, 0)
        self._add(SEND, index[sent], 1, num_bytes[sent], (packed - began)[sent], (now - packed)[sent])
        self._add(RECV, index[landed], 1, num_bytes[landed], 0, waits[landed])
        self._add(RECV, index[unpacked], 0, 0, (now - began)[unpacked], 0)
        self.run_ns += int((now - began)[done].sum())
        self.drain_ns += int(waits[done].sum())
        self.blocked_ns += int((now - blocked)[done].sum())
        spans, nothing = _no_spans(len(notes)), np.full(len(notes), -1)
        for place, kind, pick, which, begin, end in (
            (0, Kind.PACK, sent, index, began, packed),
            (1, Kind.POST, sent, index, packed, now),
            (0, Kind.WAIT, waited, index, idle, now),
            (1, Kind.LAND, landed, index, now, now),
            (0, Kind.UNPACK, unpacked, index, began, now),
            (0, Kind.DRAIN, done, nothing, idle, now),
            (1, Kind.RUN, done, nothing, began, now),
        ):
            same = np.full((2, pick.size), [[kind], [self._number]])
            spans[pick, place] = np.stack([*same, which[pick], run[pick], begin[pick], end[pick]], axis=1)
        return spans

    def _add(self, side: int, index: IntGlobal, *amounts: IntGlobal | int) -> None:
        added = np.stack([np.broadcast_to(np.asarray(one, dtype=np.int64), index.shape) for one in amounts], axis=1)
        np.add.at(self._totals[side], index, added)

    def _side(self, side: int) -> IntGlobal:
        given = self._messages[side]
        table = np.empty((len(given), len(COLUMNS)), dtype=np.int64)
        table[:, 0], table[:, 1], table[:, 2:7], table[:, 7:] = self._number, side, given, self._totals[side]
        return table


def _no_spans(count: int) -> IntGlobal:
    return np.full((count, 2, 6), -1, dtype=np.int64)


class AnyTrack(Protocol):
    """Messages of one rank; see `Track`."""

    def table(self) -> IntGlobal: ...

    def to_json(self) -> dict[str, Any]: ...


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
        notes = np.array(self._notes, dtype=np.int64).reshape(-1, _NOTE)
        self._notes.clear()
        if not len(notes):
            return
        idle, blocked = self._waiting(notes)
        spans, track = _no_spans(len(notes)), notes[:, 1]
        for number, one in enumerate(self.tracks):
            mine = np.flatnonzero(track == number)
            if mine.size and isinstance(one, Track):
                spans[mine] = one.digest(notes[mine], idle[mine], blocked[mine])
        mine = np.flatnonzero(track == _NO_TRACK)
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
        turns = np.where((what == _BLOCKED) | (what == _DONE), places, -1)
        turn = np.concatenate([[-1], np.maximum.accumulate(turns)])  # the last one before each note, and at the end
        since = np.where(turn < 0, self._blocked_since, np.where(what[turn] == _BLOCKED, now[turn], 0))
        last = np.concatenate([[self._last_ns], now])
        idle = np.where(since > 0, last, 0)
        self._blocked_since, self._last_ns = int(since[-1]), int(last[-1])
        return idle[:-1], since[:-1]

    def _digest_products(self, every: IntGlobal, places: IntGlobal) -> IntGlobal:
        """Add the notes of products at `places` to the totals, and return a span for each.

        The time of a product is without that of the messages that were packed and unpacked meanwhile.
        """
        what, _, _, _, began, _, now, _ = every.T
        moving = np.where((what == _SENT) | (what == _UNPACKED), now - began, 0)
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
        same = np.full((2, len(notes)), [[Kind.PRODUCT], [_NO_TRACK]])
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
        self._recorder.note((_MADE, _NO_TRACK, self._number, 0, began, 0, clock(), 0))
        self._recorder.digest_some()


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


class _Here(threading.local):
    recorder: Recorder | None = None  # of the class: asking for an attribute that is not there costs ten times as much


here: Final = _Here()  # of this thread, which is a rank


def active() -> Recorder | None:
    """Return the recorder of this thread, which is a rank, if it has one."""
    return here.recorder


def products() -> Recorder | _Off:
    """Return what takes the time of products, whether anything is recorded or not."""
    return active() or _OFF


def activate(recorder: Recorder | None) -> Recorder | None:
    """Make `recorder`, or none, the active one of this thread, and return the one that was."""
    before = active()
    here.recorder = recorder
    return before
