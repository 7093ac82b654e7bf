"""When messages were under way: what left a rank is matched with what came to another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsecomm.profile import COLUMNS, RECV, SEND, Kind
from sparsecomm.profile_store import RankProfile
from sparsecomm.typing import IntGlobal


@dataclass(frozen=True, slots=True, eq=False)
class Transfers:
    """Messages seen at both ends, (num_transfers,) int64 columns; times in nanoseconds of the clock of rank 0.

    Args:
        track, run, stage, level, src, dst: which message.
        num_bytes: that it carried.
        begin: when it was packed and handed to the transport.
        end: when its receiver saw that it had come.
    """

    track: IntGlobal
    run: IntGlobal
    stage: IntGlobal
    level: IntGlobal
    src: IntGlobal
    dst: IntGlobal
    num_bytes: IntGlobal
    begin: IntGlobal
    end: IntGlobal

    def __len__(self) -> int:
        return self.track.size

    @property
    def ns(self) -> IntGlobal:
        """(num_transfers,) int64; clocks are compared only so well, so that it is at least 1."""
        taken: IntGlobal = np.maximum(self.end - self.begin, 1)
        return taken


def match(ranks: list[RankProfile]) -> Transfers:
    """Return the messages that are among the kept spans of both their ranks."""
    if not ranks:
        return NONE
    sent = np.concatenate([_moments(rank, Kind.POST, SEND) for rank in ranks])
    came = np.concatenate([_moments(rank, Kind.LAND, RECV) for rank in ranks])
    both = np.concatenate([sent, came])
    if not len(both):
        return NONE
    key = np.zeros(len(both), dtype=np.int64)
    for place in (0, 1, 2, 4, 5):  # track, run, stage, src, dst
        key = key * (both[:, place].max() + 1) + both[:, place]
    _, first, second = np.intersect1d(key[: len(sent)], key[len(sent) :], return_indices=True)
    begin, end = sent[first], came[second]
    columns: list[IntGlobal] = [*begin.T, end[:, 7]]
    return Transfers(*columns)


def _moments(rank: RankProfile, kind: Kind, side: int) -> IntGlobal:
    """Return (n, 8): track, run, stage, level, src, dst, bytes, and the moment: a post begins, a landing is."""
    spans = rank.spans[rank.spans[:, 0] == kind]
    messages = rank.messages[rank.messages[:, COLUMNS.index("side")] == side]
    first = np.searchsorted(messages[:, 0], spans[:, 1])  # messages lie by track
    one = messages[np.minimum(first + spans[:, 2], len(messages) - 1)] if len(messages) else messages[:0]
    spans = spans[: len(one)]
    here, peer = np.full(len(spans), rank.rank), one[:, COLUMNS.index("peer")]
    src, dst = (here, peer) if side == SEND else (peer, here)
    size = one[:, COLUMNS.index("bytes")] // np.maximum(one[:, COLUMNS.index("count")], 1)
    return np.stack([spans[:, 1], spans[:, 3], one[:, 2], one[:, 3], src, dst, size, spans[:, 4]], axis=1)


NONE = Transfers(*np.empty((9, 0), dtype=np.int64))
