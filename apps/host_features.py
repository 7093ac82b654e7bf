"""Features that stay in host memory because they do not fit the GPU, which reads the rows that it needs where they lie.

Source: Min et al., "EMOGI: efficient memory-access for out-of-memory graph-traversal in GPUs", 2020: threads that read
whole 128-byte lines, side by side, use the bus to the host as well as a copy does.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from sparsecomm.apps.matrix import DistMatrix
from sparsecomm.arrays import DeviceArray, as_device, device_module, pinned, settle
from sparsecomm.collectives.device import copy_rows
from sparsecomm.collectives.exchange import Exchange
from sparsecomm.collectives.transport.base import agreed
from sparsecomm.errors import InputError
from sparsecomm.kernels.cuda import DeviceMatrix
from sparsecomm.plan import RankPlan
from sparsecomm.typing import IntGlobal

Dense = npt.NDArray[Any]
_LINE: Final = 128  # bytes that a GPU asks the host for at once
_DTYPES: Final = ("float32", "float64")


class HostFeatures:
    """A block of rows in pinned memory of the host, each of which begins at a line of 128 bytes.

    Args:
        num_rows, width: of the block.
        dtype: float32 or float64.

    Attributes:
        padded: (num_rows, at least width), rows of whole lines; what is beyond `width` is zero.
        rows: (num_rows, width), a view of it.
    """

    def __init__(self, num_rows: int, width: int, dtype: npt.DTypeLike) -> None:
        kind = np.dtype(dtype)
        if kind.name not in _DTYPES:
            raise InputError(f"features in host memory are of {' or '.join(_DTYPES)}, not of {kind}; convert them")
        pitch = max(-(-width * kind.itemsize // _LINE), 1) * _LINE
        memory = pinned(num_rows * pitch + _LINE)
        begin = -memory.ctypes.data % _LINE
        memory = memory[begin : begin + num_rows * pitch]
        self.padded: Dense = memory.view(kind).reshape(num_rows, pitch // kind.itemsize)
        self.padded[:, width:] = 0
        self.rows = self.padded[:, :width]

    @staticmethod
    def of(x: Dense) -> HostFeatures:
        """Return a copy of (n, width) rows."""
        made = HostFeatures(x.shape[0], x.shape[1], x.dtype)
        made.rows[:] = x
        return made

    @property
    def row_bytes(self) -> int:
        """Bytes from row to row, whole lines."""
        return int(self.padded.shape[1]) * self.padded.itemsize


class HostProduct:
    """A @ X on GPUs, for an X that stays in host memory: for the first layer of a network, whose A @ X is then kept.

    The nonzeros of a rank are cut into pieces whose rows of X fit the given memory. For each piece a kernel reads these
    rows from the host, every one once, and they are multiplied.

    Args:
        matrix: A; every nonzero is multiplied by the owner of its row (`row_mode=False`).
        num_bytes: of GPU memory for rows of X; a row at least.

    Attributes:
        bytes_read: by this rank's GPU from host memory, of X, so far.

    Raises:
        InputError: on every rank, when some nonzero is multiplied elsewhere.

    Note: Collective over comm.
    """

    def __init__(self, matrix: DistMatrix, num_bytes: int) -> None:
        agreed(matrix.transport, lambda: _check(matrix))
        self._matrix, self._num_bytes, self.bytes_read = matrix, num_bytes, 0

    def __call__(self, x: HostFeatures) -> DeviceArray:
        """Return this rank's rows of A @ X on the GPU, (num_own_rows, width).

        Args:
            x: this rank's rows of X, of the dtype of A.

        Raises:
            InputError: X does not fit A, or not one row of it fits the memory.

        Note: Collective over comm.
        """
        agreed(self._matrix.transport, lambda: self._check(x))
        gather, (own, in_, *_) = self._matrix.product.gather, self._matrix.blocks.all
        y = device_module().empty((own.shape[0], x.rows.shape[1]), x.rows.dtype)
        y.fill(0)
        self._add(own.matrix, x, y)
        if gather.stages:
            self._add(in_.matrix, self._ghosts(x, gather), y)
        return y

    def _check(self, x: HostFeatures) -> None:
        gather, dtype = self._matrix.product.gather, self._matrix.dtype
        if x.rows.shape[0] != gather.num_own or x.rows.dtype != dtype:
            raise InputError(
                f"rank {gather.rank} owns {gather.num_own} rows of {dtype}, not {x.rows.shape[0]} of {x.rows.dtype}"
            )
        if self._num_bytes < x.row_bytes:
            raise InputError(
                f"one row of X has {x.row_bytes} bytes, more than the {self._num_bytes} of GPU memory that it was given"
            )

    def _ghosts(self, x: HostFeatures, gather: RankPlan) -> HostFeatures:
        width = x.rows.shape[1]
        exchange: Exchange = self._matrix.exchange("gather", width, x.rows.dtype)
        ghosts = HostFeatures(gather.num_ghost, width, x.rows.dtype)
        exchange.own_buffer()[:] = x.rows
        ghosts.rows[:] = exchange.start(exchange.own_buffer()).wait()
        return ghosts

    def _add(self, block: csr_array[Any], x: HostFeatures, y: DeviceArray) -> None:
        """Add the product of a block, piece by piece; what is read has been read when this returns."""
        width = x.rows.shape[1]
        for rows, piece, columns in pieces(block, self._num_bytes // x.row_bytes):
            read = device_module().empty((columns.size, x.padded.shape[1]), x.rows.dtype)
            copy_rows(read, None, x.padded, as_device(columns))
            DeviceMatrix(piece, "rows").multiply(read[:, :width], y[rows], keep=True)
            self.bytes_read += columns.size * x.row_bytes
        settle(y)


def pieces(block: csr_array[Any], most: int) -> list[tuple[slice, csr_array[Any], IntGlobal]]:
    """Cut the nonzeros of a matrix, in CSR order, into runs that touch at most so many columns each, at least one.

    Returns:
        Of each run: the rows that it touches, the nonzeros as a matrix of these rows and of its columns alone, and its
        columns, (n,) int64 ascending.
    """
    from sparsecomm.apps.host_features_loops import cut  # which loads numba

    bounds = cut(block.indices, block.shape[1], most)
    return [_piece(block, int(begin), int(end)) for begin, end in pairwise(bounds)]


def _piece(block: csr_array[Any], begin: int, end: int) -> tuple[slice, csr_array[Any], IntGlobal]:
    first = int(np.searchsorted(block.indptr, begin, side="right")) - 1
    last = int(np.searchsorted(block.indptr, end, side="left"))
    indptr = np.clip(block.indptr[first : last + 1], begin, end) - begin
    columns, place = np.unique(block.indices[begin:end], return_inverse=True)
    piece = csr_array((block.data[begin:end], place, indptr), shape=(last - first, columns.size))
    return slice(first, last), piece, columns.astype(np.int64)


def _check(matrix: DistMatrix) -> None:
    product = matrix.product
    if product.scatter.stages or product.scatter.num_ghost:
        raise InputError(
            f"features in host memory need every nonzero multiplied by the owner of its row, but the strategy is "
            f"{product.strategy}; make the matrix with row_mode=False"
        )
