"""What an exchange really did, counted where bytes are handed over and where they arrive."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

from sparsecomm.typing import IntGlobal, frozen


@dataclass(frozen=True, slots=True, eq=False)
class Executed:
    """Counts of one rank since its exchange was made, each (num_levels,) int64.

    Args:
        rows_sent, bytes_sent, messages_sent: from the sizes handed to the transport.
        pieces_sent: what the messages sent were split into.
        rows_received, bytes_received, messages_received: from the sizes that the transport reports on arrival.
        bytes_copied: inside the rank, at the innermost level: blocks given in memory that is not the exchange's.
        bytes_loaded: read in place from the memory of other ranks.
    """

    rows_sent: IntGlobal
    bytes_sent: IntGlobal
    messages_sent: IntGlobal
    pieces_sent: IntGlobal
    rows_received: IntGlobal
    bytes_received: IntGlobal
    messages_received: IntGlobal
    bytes_copied: IntGlobal
    bytes_loaded: IntGlobal

    def __add__(self, other: Executed) -> Executed:
        return Executed(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __sub__(self, other: Executed) -> Executed:
        """Return what happened after `other` was taken."""
        return Executed(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))


class Counter:
    """Counts while an exchange runs, in plain ints: an addition to an array costs far more.

    Attributes:
        late: each adds what somebody has put off; called before counts are read.
    """

    def __init__(self, num_levels: int) -> None:
        self.late: list[Callable[[], None]] = []
        self._counts = {f.name: [0] * num_levels for f in fields(Executed)}
        self.copied, self.loaded = self._counts["bytes_copied"], self._counts["bytes_loaded"]
        self._sent = [self._counts[f"{noun}_sent"] for noun in ("rows", "bytes", "messages", "pieces")]
        self._received = [self._counts[f"{noun}_received"] for noun in ("rows", "bytes", "messages")]

    def sent(self, level: int, num_rows: int, num_bytes: int, pieces: int, num_messages: int = 1) -> None:
        rows, sizes, messages, parts = self._sent
        rows[level] += num_rows
        sizes[level] += num_bytes
        messages[level] += num_messages
        parts[level] += pieces

    def received(self, level: int, num_rows: int, num_bytes: int, num_messages: int = 1) -> None:
        rows, sizes, messages = self._received
        rows[level] += num_rows
        sizes[level] += num_bytes
        messages[level] += num_messages

    def catch_up(self) -> None:
        """Have everything counted that was put off; nobody puts anything off any more."""
        for count in self.late:
            count()
        self.late.clear()

    def executed(self) -> Executed:
        for count in self.late:
            count()
        counts = {name: frozen(np.array(count, dtype=np.int64)) for name, count in self._counts.items()}
        return Executed(**counts)
