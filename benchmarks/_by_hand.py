"""What a user would write with mpi4py and scipy alone: two distributed products, neither of them a straw man.

Both take what `DistMatrix` takes, this rank's rows with all columns, and give memory for X that they read in place.
Both wait by polling, and let other ranks run between two polls: where there are more ranks than cores, a blocking
collective spins on a core that the rank it waits for needs. `blocking=True` is for those who want to see that.
"""

from __future__ import annotations

import os
from typing import Any

from mpi4py import MPI

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

Dense = npt.NDArray[Any]


class NeededRows:
    """`Alltoallv` of the rows of X that are needed, each once per rank, then one local product.

    The lists of rows are exchanged once. Received rows land behind the own ones, in the array that the local matrix,
    its columns renumbered, multiplies: nothing is unpacked or added up.

    Args:
        rows: (own rows, all columns).
        offsets: (num_ranks + 1,), rank p owns the columns `offsets[p] .. offsets[p + 1] - 1`.
        comm: over the ranks.
        width: columns of X.
        blocking: whether to call the blocking collective.
    """

    def __init__(
        self,
        rows: csr_array[Any],
        offsets: npt.NDArray[np.int64],
        comm: MPI.Intracomm,
        width: int,
        *,
        blocking: bool = False,
    ) -> None:
        first, last = offsets[comm.rank], offsets[comm.rank + 1]
        needed = np.unique(rows.indices)
        needed = needed[(needed < first) | (needed >= last)].astype(np.int64)
        recv_rows = np.diff(np.searchsorted(needed, offsets))
        send_rows = np.empty_like(recv_rows)
        comm.Alltoall(recv_rows, send_rows)
        asked = np.empty(send_rows.sum(), dtype=np.int64)
        comm.Alltoallv((needed, recv_rows), (asked, send_rows))

        self.peers_rows, self.rows_sent, self._blocking = recv_rows, send_rows, blocking
        self._comm, self._num_own, self._send_index = comm, int(last - first), asked - first
        self._matrix = _renumbered(rows, needed, first, last)
        self._x = np.empty((self._num_own + needed.size, width), dtype=rows.dtype)
        self._sent = np.empty((asked.size, width), dtype=rows.dtype)
        self._send = (self._sent, send_rows * width)
        self._recv = (self._x[self._num_own :], recv_rows * width)

    def empty(self) -> Dense:
        """Return the memory of X, which `multiply` reads in place."""
        return self._x[: self._num_own]

    def fetched(self) -> Dense:
        """Return the rows of others that the last `move` brought."""
        return self._x[self._num_own :]

    def move(self) -> None:
        """Bring the rows of X that the product needs."""
        np.take(self._x, self._send_index, axis=0, out=self._sent, mode="clip")
        if self._blocking:
            self._comm.Alltoallv(self._send, self._recv)
        else:
            _complete(self._comm.Ialltoallv(self._send, self._recv))

    def multiply(self) -> Dense:
        """Return this rank's rows of A @ X."""
        self.move()
        return self._matrix @ self._x


class Neighbours(NeededRows):
    """The same rows by a neighbourhood collective, persistent where the MPI has MPI-4's."""

    def __init__(self, rows: csr_array[Any], offsets: npt.NDArray[np.int64], comm: MPI.Intracomm, width: int) -> None:
        super().__init__(rows, offsets, comm, width)
        sides = []
        for data, counts in (self._send, self._recv):
            near = np.flatnonzero(counts)
            sides.append((near, [data, (counts[near], (np.cumsum(counts) - counts)[near])]))
        (to, send), (source, recv) = sides
        self._graph = comm.Create_dist_graph_adjacent(source.tolist(), to.tolist())
        self._begin = lambda: self._graph.Ineighbor_alltoallv(send, recv)
        try:
            request = self._graph.Neighbor_alltoallv_init(send, recv)
        except (NotImplementedError, MPI.Exception):
            return
        self._begin = lambda: (request.Start(), request)[1]

    def move(self) -> None:
        """Bring the rows of X that the product needs."""
        np.take(self._x, self._send_index, axis=0, out=self._sent, mode="clip")
        _complete(self._begin())


class WholeX:
    """`Allgatherv` of X, then the product of the own rows with all of it.

    Args:
        rows: (own rows, all columns).
        offsets: (num_ranks + 1,), rank p owns the columns `offsets[p] .. offsets[p + 1] - 1`.
        comm: over the ranks.
        width: columns of X.
        blocking: whether to call the blocking collective.
    """

    def __init__(
        self,
        rows: csr_array[Any],
        offsets: npt.NDArray[np.int64],
        comm: MPI.Intracomm,
        width: int,
        *,
        blocking: bool = False,
    ) -> None:
        counts = np.diff(offsets)
        self.peers_rows = counts * (np.arange(counts.size) != comm.rank)
        self.rows_sent = counts[comm.rank] * (np.arange(counts.size) != comm.rank)
        self._matrix, self._comm, self._blocking = _narrow(rows), comm, blocking
        self._x = np.empty((int(offsets[-1]), width), dtype=rows.dtype)
        self._own = slice(int(offsets[comm.rank]), int(offsets[comm.rank + 1]))
        self._whole = (self._x, counts * width)

    def empty(self) -> Dense:
        """Return the memory of this rank's rows of X, which `multiply` reads in place."""
        return self._x[self._own]

    def whole(self) -> Dense:
        """Return all of X as the last `multiply` brought it."""
        return self._x

    def move(self) -> None:
        """Bring all of X."""
        if self._blocking:
            self._comm.Allgatherv(MPI.IN_PLACE, self._whole)
        else:
            _complete(self._comm.Iallgatherv(MPI.IN_PLACE, self._whole))

    def multiply(self) -> Dense:
        """Return this rank's rows of A @ X."""
        self.move()
        return self._matrix @ self._x


def _complete(request: MPI.Request) -> None:
    while not request.Test():
        os.sched_yield()


def _renumbered(rows: csr_array[Any], needed: npt.NDArray[np.int64], first: int, last: int) -> csr_array[Any]:
    """Return the rows with columns as they lie in [own rows of X | received rows of X]."""
    own = (rows.indices >= first) & (rows.indices < last)
    place = np.where(own, rows.indices - first, last - first + np.searchsorted(needed, rows.indices))
    matrix = csr_array((rows.data.copy(), place, rows.indptr), shape=(rows.shape[0], int(last - first) + needed.size))
    matrix.sort_indices()
    return _narrow(matrix)


def _narrow(matrix: csr_array[Any]) -> csr_array[Any]:
    """Return the matrix with 32-bit indices, with which scipy multiplies faster."""
    index = np.int32 if max(matrix.nnz, matrix.shape[1]) < 2**31 else np.int64
    parts = (matrix.data, matrix.indices.astype(index), matrix.indptr.astype(index))
    return csr_array(parts, shape=matrix.shape)
