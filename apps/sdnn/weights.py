"""The weights of a rank: in memory while they fit, else in a file that is read ahead of the layers."""

from __future__ import annotations

import os
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from sparsecomm.apps.sdnn.memory import Budget
from sparsecomm.apps.sdnn.share import Share
from sparsecomm.errors import ExchangeError, InputError

# A layer begins on a page of the file system and is read in few long requests.
_ALIGNMENT: Final = 4096
_REQUEST: Final = 16 << 20

_Words = npt.NDArray[np.int32]


@dataclass(slots=True)
class Streamed:
    """What was read while layers were computed: bytes, requests, and seconds that the layers waited for them."""

    num_bytes: int = 0
    requests: int = 0
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a layer lies in the file; `shapes` are (rows, columns, nonzeros) of its matrices."""

    offset: int
    num_words: int
    shapes: tuple[tuple[int, int, int], ...]


class Weights:
    """Shares of the distinct layers, added once and then taken in turn, any number of times.

    Once they take more memory than allowed, all go to a file without a name. From then on two layers are in memory:
    the one that is used, and the next, which a thread reads meanwhile.

    Args:
        budget: of the process; half of what is left when the first share comes is for weights.
        folder: where the file is made; the system's folder for temporary files by default.
        implementation: of the products with layers that are read.
    """

    def __init__(self, budget: Budget, folder: Path | None = None, implementation: str = "auto") -> None:
        left = budget.left()
        self._most = None if left is None else left // 2
        self._folder, self._implementation = folder, implementation
        self._shares: list[Share] = []
        self._places: list[_Place] = []
        self._held = 0
        self._file: Any = None
        self._pool: ThreadPoolExecutor | None = None
        self._next: tuple[int, Future[_Words]] | None = None
        self._buffers: list[_Words] = []
        self.streamed = Streamed()

    @property
    def in_file(self) -> bool:
        return self._file is not None

    @property
    def num_bytes(self) -> int:
        """Bytes of all weights and indices, wherever they are."""
        return sum(4 * place.num_words for place in self._places) + sum(share.num_bytes for share in self._shares)

    @property
    def largest(self) -> int:
        """Bytes of the largest layer."""
        places = [4 * place.num_words for place in self._places]
        return max([*places, *(share.num_bytes for share in self._shares)], default=0)

    def add(self, share: Share) -> None:
        """Add the next distinct layer.

        Raises:
            InputError: it fits neither the memory allowed nor the disk.
        """
        self._held += share.num_bytes
        self._shares.append(share)
        if self._file is None and (self._most is None or self._held <= self._most):
            return
        try:
            self._spill()
        except OSError as err:
            raise InputError(
                f"the weights do not fit the memory allowed, and cannot be written to {self._folder or 'a temporary'}"
                f" file: {err.strerror or err}; give a folder with room by --scratch, or more memory"
            ) from err

    def _spill(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
        self._places += [_write(self._file, share) for share in self._shares]
        self._file.flush()
        self._shares.clear()

    def get(self, distinct: int, following: int) -> Share:
        """Return the share of a layer, valid until the next one is asked for.

        Args:
            distinct: which layer.
            following: which one will be asked for next, read meanwhile.
        """
        if self._file is None:
            return self._shares[distinct]
        begin = time.perf_counter()
        words = self._arrived(distinct)
        self.streamed.wait_s += time.perf_counter() - begin
        self._read_ahead(following)
        return Share.of(_unpack(words, self._places[distinct]), self._implementation)

    def close(self) -> None:
        """Drop the weights and the file."""
        if self._pool is not None:
            self._pool.shutdown()
        if self._file is not None:
            self._file.close()
        self._shares.clear()
        self._buffers.clear()

    def _arrived(self, distinct: int) -> _Words:
        if self._next is None or self._next[0] != distinct:
            if self._next is not None:
                self._next[1].result()  # its buffer is free only when it has been read
            self._read_ahead(distinct)
        assert self._next is not None
        return self._next[1].result()

    def _read_ahead(self, distinct: int) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="sdnn-weights")
            self._buffers = [np.empty(self.largest // 4, dtype=np.int32) for _ in range(2)]
        self._buffers.reverse()
        self._next = (distinct, self._pool.submit(self._read, self._places[distinct], self._buffers[0]))

    def _read(self, place: _Place, buffer: _Words) -> _Words:
        words = buffer[: place.num_words]
        raw = words.data.cast("B")
        for begin in range(0, len(raw), _REQUEST):
            part = raw[begin : begin + _REQUEST]
            if os.preadv(self._file.fileno(), [part], place.offset + begin) != len(part):
                raise ExchangeError("the file of the weights ended early; is its disk full?")
            self.streamed.requests += 1
        self.streamed.num_bytes += len(raw)
        return words


def _write(file: Any, share: Share) -> _Place:
    """Append the arrays of a share, one after the other, at the next aligned place."""
    offset = -(-file.tell() // _ALIGNMENT) * _ALIGNMENT
    file.seek(offset)
    for matrix in share.matrices:
        for array in (matrix.indptr, matrix.indices, matrix.data):
            file.write(np.ascontiguousarray(array).data)
    shapes = tuple((*matrix.shape, matrix.nnz) for matrix in share.matrices)
    return _Place(offset, share.num_bytes // 4, shapes)


def _unpack(words: _Words, place: _Place) -> list[csr_array[Any]]:
    """Return the matrices whose arrays `words` holds, without a copy."""
    matrices, start = [], 0
    for rows, cols, nnz in place.shapes:
        indptr, indices, data = np.split(words[start : start + rows + 1 + 2 * nnz], [rows + 1, rows + 1 + nnz])
        matrices.append(csr_array((data.view(np.float32), indices, indptr), shape=(rows, cols)))
        start += rows + 1 + 2 * nnz
    return matrices
