"""A distributed matrix whose ranks multiply slices of the width: X and Y are redistributed by all-to-all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from sparsecomm.apps.matrix import DistMatrix
from sparsecomm.apps.whole import collect, distribute
from sparsecomm.collectives.executed import Executed
from sparsecomm.collectives.guard import ClosedTogether
from sparsecomm.collectives.redistribute import REDISTRIBUTE
from sparsecomm.collectives.transport.open import open_transport
from sparsecomm.errors import InputError
from sparsecomm.layout import Layout, Layouts
from sparsecomm.topology import Topology
from sparsecomm.typing import IntGlobal

Dense = npt.NDArray[Any]


class RedistributedMatrix(ClosedTogether):
    """A matrix whose remote nonzeros every rank holds, to multiply its slice of the columns of X with all of them.

    It multiplies A x I, the identity having a row for each rank, by X cut into pieces: row r of X, k wide, is as many
    rows of k / num_ranks columns. Piece s of every row goes to rank s, and pieces of partial rows of Y come back. So
    each row of X and of Y moves once, whatever the matrix, and no plan that moves whole rows can do that.

    Args:
        rows: (own rows, all columns) in new numbering.
        layouts: who owns rows and columns.
        topology: of the job.
        comm: an mpi4py communicator or a transport; None is the world.

    Raises:
        InputError: on every rank, when the parts do not fit each other.

    Note: Collective over comm.

    Source: RDM of Kurt et al., IPDPS 2023, which moves all of X and Y; here rows that no remote nonzero needs stay.
    """

    def __init__(self, rows: csr_array[Any], layouts: Layouts, topology: Topology, comm: object | None = None) -> None:
        self.layouts, self.topology, self._nnz = layouts, topology, rows.nnz
        self._pieces = topology.num_ranks
        made, self._place = in_pieces(rows, self._pieces)
        cut = Layouts(*(Layout(layout.offsets * self._pieces) for layout in layouts))
        self._transport = open_transport(comm)
        self._matrix = DistMatrix.from_rows(made, cut, topology, self._transport, strategy=REDISTRIBUTE)

    def __repr__(self) -> str:
        return (
            f"RedistributedMatrix(shape={self.shape}, dtype={self._matrix.dtype}, pieces={self._pieces}, "
            f"topology={self.topology.name!r})"
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the whole matrix."""
        return self.layouts.rows.num_rows, self.layouts.cols.num_rows

    @property
    def executed(self) -> Executed:
        """What this rank has sent, received and copied; its rows are pieces, `num_ranks` of which are one row."""
        return self._matrix.executed

    def __matmul__(self, x: Dense) -> Dense:
        """Return this rank's rows of A @ X.

        Args:
            x: (num_own_cols, k) or (num_own_cols,), this rank's rows of X; not modified. Without a copy where k is a
                multiple of the number of ranks; else zeros go along that make it one.

        Raises:
            InputError: x has another number of rows.

        Note: Collective over comm.
        """
        return self._multiply(x, self.layouts.cols, self._matrix.__matmul__)

    def multiply_transposed(self, y: Dense) -> Dense:
        """Return this rank's rows of A.T @ Y, likewise.

        Note: Collective over comm.
        """
        return self._multiply(y, self.layouts.rows, self._matrix.multiply_transposed)

    def update_values(self, data: Dense) -> None:
        """Replace the values of this rank's nonzeros, and tell all ranks; the structure stays.

        Args:
            data: (own nonzeros,) in the CSR order of the rows that the matrix was made of.

        Raises:
            InputError: on every rank, when some rank gave another number of values.

        Note: Collective over comm.
        """
        wrong = None
        if data.shape != (self._nnz,):
            wrong = InputError(f"update_values needs {self._nnz} values, not an array of shape {data.shape}")
        self._transport.agree(wrong)
        self._matrix.update_values(data[self._place])

    def distribute(self, x: Dense | None, root: int = 0) -> Dense:
        """Send a whole X, in original numbering, from `root` to the ranks that own its rows.

        Note: Collective over comm.
        """
        return distribute(x, self.layouts.cols, self._transport, root)

    def collect(self, y: Dense, root: int = 0) -> Dense | None:
        """Return a whole Y, in original numbering, on `root`; None elsewhere.

        Note: Collective over comm.
        """
        return collect(y, self.layouts.rows, self._transport, root)

    def close(self) -> None:
        """Free communicators and buffers; a second call does nothing.

        Note: Collective over comm.
        """
        self._matrix.close()
        self._transport.close()

    def _multiply(self, x: Dense, layout: Layout, multiply: Callable[[Dense], Dense]) -> Dense:
        rank = self._transport.rank
        num_own = len(layout.own_rows(rank))
        if x.ndim not in (1, 2) or x.shape[0] != num_own:
            raise InputError(f"rank {rank} owns {num_own} rows of X, not an array of shape {x.shape}")
        block = x[:, None] if x.ndim == 1 else x
        width = block.shape[1]
        short = -width % self._pieces
        if short:
            block = np.pad(block, ((0, 0), (0, short)))
        narrow = block.shape[1] // self._pieces
        y = multiply(np.ascontiguousarray(block).reshape(num_own * self._pieces, narrow))
        y = y.reshape(-1, self._pieces * narrow)[:, :width]
        return y[:, 0] if x.ndim == 1 else y


def in_pieces(rows: csr_array[Any], pieces: int) -> tuple[csr_array[Any], IntGlobal]:
    """Return `rows` x the identity of `pieces` rows, and of which nonzero of `rows` each value is.

    Args:
        rows: (num_rows, num_cols).
        pieces: how many pieces a row of X is cut into.

    Returns:
        (num_rows * pieces, num_cols * pieces): piece s of row r has the nonzeros of row r at pieces s of their columns.
        (nnz * pieces,) int64, places in the nonzeros of `rows`.
    """
    counts = np.repeat(np.diff(rows.indptr), pieces)
    indptr = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    place = np.arange(indptr[-1]) + np.repeat(np.repeat(rows.indptr[:-1], pieces) - indptr[:-1], counts)
    piece = np.repeat(np.tile(np.arange(pieces), rows.shape[0]), counts)
    indices = rows.indices[place].astype(np.int64) * pieces + piece
    shape = (rows.shape[0] * pieces, rows.shape[1] * pieces)
    return csr_array((rows.data[place], indices, indptr), shape=shape), place
