"""What a program of its own sends, by peer and by level."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mpi4py import MPI

import numpy as np

from sparsecomm.collectives.profile import Profile
from sparsecomm.collectives.transport.counted import CountedComm
from sparsecomm.collectives.transport.counted_track import CountedTrack
from sparsecomm.collectives.transport.mpi import topology_of
from sparsecomm.topology import Topology
from sparsecomm.typing import IntGlobal, IntRank


@dataclass(frozen=True, slots=True, eq=False)
class PeerTraffic:
    """What one rank has handed over.

    Args:
        peer_bytes, peer_messages: (num_ranks,) int64, for each peer.
        level_bytes, level_messages: level -> what went to peers at this level.
    """

    peer_bytes: IntGlobal
    peer_messages: IntGlobal
    level_bytes: dict[str, int]
    level_messages: dict[str, int]


class Attached(CountedComm):
    """A communicator that counts; see `CountedComm` for what.

    Args:
        comm: what really communicates.
        topology: of its ranks; None finds it, which is collective.

    Note: Collective over comm.
    """

    def __init__(self, comm: MPI.Intracomm, topology: Topology | None = None) -> None:
        self.topology = topology or topology_of(comm)
        super().__init__(comm)

    def traffic(self) -> PeerTraffic:
        """Return what this rank has handed over since it was attached."""
        topology, level = self.topology, self._levels()
        sums = [np.bincount(level, w, topology.num_levels) for w in (self.num_bytes, self.num_messages)]
        by_level = [dict(zip(topology.level_names, map(int, values), strict=True)) for values in sums]
        return PeerTraffic(self.num_bytes.copy(), self.num_messages.copy(), *by_level)

    def save(self, path: str | Path) -> None:
        """Write what all ranks have handed over as a profile directory, for `sparsecomm report` and `compare`.

        Raises:
            InputError: on every rank, when the directory cannot be made.

        Note: Collective over comm.
        """
        profile = Profile.record(path, self.comm, topology=self.topology)
        peers = np.flatnonzero(self.num_messages)
        level = self._levels()[peers].astype(np.int64)
        track = CountedTrack("program", 0, level, peers, self.num_messages[peers], self.num_bytes[peers])
        profile.recorder.tracks.append(track)
        profile.save()

    def _levels(self) -> IntRank:
        """Return the level of every peer; of this rank itself the innermost."""
        peers = np.arange(self.comm.size, dtype=np.int32)
        return self.topology.level_of(np.full_like(peers, self.comm.rank), peers)
