"""The messages of a program of its own, as recordings hold them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sparsecomm.profile import COLUMNS, SEND, TrackFacts
from sparsecomm.typing import IntGlobal


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
