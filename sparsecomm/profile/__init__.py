"""What the exchanges and products of one rank did, and when: exact totals, and the latest spans in a ring."""

from __future__ import annotations

from typing import Final

from sparsecomm.profile.current import activate, active, here, products
from sparsecomm.profile.recorder import CAPACITY, Recorder
from sparsecomm.profile.track import COLUMNS, RECV, SEND, Kind, Ranges, Track, TrackFacts, clock

VARIABLE: Final = "SPARSECOMM_PROFILE"

__all__ = [
    "CAPACITY", "COLUMNS", "RECV", "SEND", "VARIABLE", "Kind", "Ranges", "Recorder", "Track", "TrackFacts", "activate",
    "active", "clock", "here", "products",
]  # fmt: skip
