"""What the messages of one direction of one exchange did: how often each moved, and what it cost."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from sparsecomm.typing import IntGlobal

if TYPE_CHECKING:
    from sparsecomm.profile.recorder import Recorder

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
NOTE: Final = 8
SENT, LANDED, UNPACKED, BLOCKED, DONE, MADE = range(6)
NO_TRACK: Final = -1


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
        self._note((SENT, self._number, index, run, began, packed, clock(), num_bytes))

    def landed(self, index: int, run: int, num_bytes: int) -> None:
        """A message has come, just now or while the rank did something else."""
        self._note((LANDED, self._number, index, run, 0, 0, clock(), num_bytes))

    def unpacked(self, index: int, run: int, began: int) -> None:
        """A message was taken in from `began` until now."""
        self._note((UNPACKED, self._number, index, run, began, 0, clock(), 0))

    def block(self) -> None:
        """The rank does nothing from now on but wait."""
        self._note((BLOCKED, self._number, 0, 0, 0, 0, clock(), 0))
        if self._ranges is not None:
            self._open_wait = self._ranges.begin(f"wait for {self._label}")

    def unblock(self, run: int, began: int) -> None:
        """A run that began at `began` is complete."""
        self._note((DONE, self._number, 0, run, began, 0, clock(), 0))
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
            notes: (num_notes, NOTE) int64, in the order in which they were made.
            idle, blocked: (num_notes,) int64, since when the rank was idle in a wait, and in the wait; 0 in none.

        Returns:
            (num_notes, 2, 6) int64: at most two spans for each, -1 where there are none.
        """
        what, _, index, run, began, packed, now, num_bytes = notes.T
        sent, landed, unpacked, done = (np.flatnonzero(what == one) for one in (SENT, LANDED, UNPACKED, DONE))
        waited = landed[idle[landed] > 0]
        waits = np.where(idle > 0, now - idle, 0)
        self._add(SEND, index[sent], 1, num_bytes[sent], (packed - began)[sent], (now - packed)[sent])
        self._add(RECV, index[landed], 1, num_bytes[landed], 0, waits[landed])
        self._add(RECV, index[unpacked], 0, 0, (now - began)[unpacked], 0)
        self.run_ns += int((now - began)[done].sum())
        self.drain_ns += int(waits[done].sum())
        self.blocked_ns += int((now - blocked)[done].sum())
        spans, nothing = no_spans(len(notes)), np.full(len(notes), -1)
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


def no_spans(count: int) -> IntGlobal:
    return np.full((count, 2, 6), -1, dtype=np.int64)


class AnyTrack(Protocol):
    """Messages of one rank; see `Track`."""

    def table(self) -> IntGlobal: ...

    def to_json(self) -> dict[str, Any]: ...
