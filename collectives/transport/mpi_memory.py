"""Memory that the ranks of one machine have in common, as an MPI-3 window."""

from __future__ import annotations

import mmap
import os
from typing import Final

from mpi4py import MPI

import numpy as np

from sparsecomm.collectives.transport.base import Bytes

_SHM: Final = "/dev/shm"


class MpiMemory:
    """A shared-memory window, all of it allocated by the first rank, so that it is one piece."""

    def __init__(self, window: MPI.Win) -> None:
        self._window: MPI.Win | None = window
        whole, _ = window.Shared_query(0)
        self.data: Bytes = np.asarray(whole).view(np.uint8)
        window.Lock_all(MPI.MODE_NOCHECK)

    @staticmethod
    def of(node: MPI.Intracomm, num_bytes: int) -> MpiMemory | None:
        """Return memory in common, or None where this rank cannot have it.

        Note: Collective over `node`.
        """
        try:
            memory = MpiMemory(MPI.Win.Allocate_shared(max(1, num_bytes) if node.rank == 0 else 0, 1, comm=node))
        except MPI.Exception:
            return None
        # Pages are taken when they are first written: now, while there is room, and near the rank that will use them.
        begin, end = (num_bytes * rank // node.size for rank in (node.rank, node.rank + 1))
        memory.data[begin : end : mmap.PAGESIZE] = 0
        return memory

    def fence(self) -> None:
        """Order memory; see `SharedMemory.fence`."""
        if self._window is not None:
            self._window.Sync()

    def close(self) -> None:
        """Free the window; a second call does nothing.

        Note: Collective over the ranks of the window.
        """
        if self._window is not None:
            self._window.Unlock_all()
            self._window.Free()
            self._window = None


def fits_shared(num_bytes: int) -> bool:
    """Return whether a segment of shared memory can hold so much: the kernel kills whoever writes beyond."""
    if not os.path.isdir(_SHM):
        return True
    room = os.statvfs(_SHM)
    return num_bytes <= room.f_bavail * room.f_frsize
