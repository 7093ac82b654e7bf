"""Structured weights: N of every M columns (N:M), or of the four columns that V rows share out of M (V:N:M)."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from sparsecomm.errors import InputError
from sparsecomm.kernels import frame
from sparsecomm.kernels.compiling import one_process
from sparsecomm.kernels.threads import num_threads
from sparsecomm.kernels.tiled import has_rows, useful_threads
from sparsecomm.kernels.walk import Walk

Dense = npt.NDArray[Any]
Bits = npt.NDArray[np.uint8]

_PART_ROWS: Final = 256  # of a part, about: each copies X for itself, and its weights should stay in a cache
_READ_PAST: Final = 8  # bytes after the last offset
_SHARED: Final = 4  # columns that the rows of a block of V:N:M share


@dataclass(frozen=True, slots=True)
class Structured:
    """A dense matrix of which every row keeps the same number of entries, packed.

    Entry i of a packed row belongs to group i // n. Its column is the group's first, plus `offsets`; with `columns`
    it is `columns[block of the row, 4 * group + offset]`.

    Args:
        shape: rows and columns.
        n, m: entries that are kept of every m columns.
        v: rows that share four columns of every m; 0 for N:M, where rows share nothing.
        values: (rows, ceil(cols / m) * n), zeros where a group has fewer entries.
        offsets: packed bits, log2 of the places of an entry each; rows begin at whole bytes.
        columns: (ceil(rows / v), 4 * ceil(cols / m)) int32 for V:N:M, else (0, 0).

    Source: 2:4 of NVIDIA's sparse tensor cores, Mishra et al. 2021; V:N:M of Castro et al., VENOM, 2023.
    """

    shape: tuple[int, int]
    n: int
    m: int
    v: int
    values: Dense
    offsets: Bits
    columns: npt.NDArray[np.int32]
    _walks: dict[tuple[int, int], Walk] = field(default_factory=dict, init=False, repr=False, compare=False)

    @staticmethod
    def pack(dense: Dense, n: int, m: int, v: int = 0) -> Structured:
        """Keep the largest entries by absolute value of every group, the first of equal ones, and pack them.

        Args:
            dense: (rows, cols) of any floating type; the last group may be narrower than m.
            n, m, v: as of the class; m (for V:N:M 4) is a power of two, n at most that.

        Raises:
            InputError: the pattern cannot be.
        """
        _check(dense, n, m, v)
        groups = -(-dense.shape[1] // m)
        padded = np.zeros((dense.shape[0], groups * m), dense.dtype)
        padded[:, : dense.shape[1]] = dense
        grouped = padded.reshape(dense.shape[0], groups, m)
        columns = np.empty((0, 0), np.int32)
        if v:
            shared = _shared_columns(grouped, v)
            grouped = np.take_along_axis(grouped, np.repeat(shared, v, axis=0)[: dense.shape[0]], axis=2)
            columns = (shared + np.arange(groups)[:, None] * m).astype(np.int32).reshape(len(shared), groups * _SHARED)
        kept = np.sort(np.argsort(-np.abs(grouped), axis=2, kind="stable")[:, :, :n], axis=2)
        values = np.take_along_axis(grouped, kept, axis=2).reshape(dense.shape[0], groups * n)
        bits = _pack_bits(kept.reshape(dense.shape[0], groups * n), _offset_bits(m, v))
        return Structured((dense.shape[0], dense.shape[1]), n, m, v, values, bits, columns)

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave out what products are made of: it belongs to this process."""
        return Structured, (self.shape, self.n, self.m, self.v, self.values, self.offsets, self.columns)

    @property
    def name(self) -> str:
        """The pattern as people write it, `2:4` or `64:2:8`."""
        return f"{self.v}:{self.n}:{self.m}" if self.v else f"{self.n}:{self.m}"

    @property
    def num_bytes(self) -> int:
        """Bytes of values, offsets and columns."""
        return self.values.nbytes + self.offsets.nbytes + self.columns.nbytes

    @property
    def indices(self) -> npt.NDArray[np.int32]:
        """The column of every packed entry, shaped as `values`; padding may name columns beyond the last."""
        places = _unpack_bits(self.offsets, self.values.shape[1], _offset_bits(self.m, self.v))
        groups = np.arange(self.values.shape[1]) // self.n
        if not self.v:
            return (places + groups * self.m).astype(np.int32)
        block = np.arange(self.shape[0]) // self.v
        shared: npt.NDArray[np.int32] = self.columns[block[:, None], places + groups * _SHARED]
        return shared

    def to_csr(self) -> csr_array[Any]:
        """Return the entries that are kept, in CSR; every row has as many but for those that were padding."""
        indices = self.indices
        inside = indices < self.shape[1]
        indptr = np.concatenate([[0], np.cumsum(inside.sum(axis=1))]).astype(np.int32)
        values = self.values[inside]
        if values.dtype == np.float16:
            values = values.astype(np.float32)  # scipy has no matrices of float16
        return csr_array((values, indices[inside], indptr), shape=self.shape)

    def multiply(self, x: Dense, out: Dense | None = None, *, threads: int | None = None) -> Dense:
        """Return `out`, set to `self @ x`.

        Sums are in the order of the columns, each product rounded together with its sum where the processor can.

        Args:
            x: (cols, k) float32 or float64; float16 values are widened to float32 as they are read.
            out: (rows, k) of x's type, written in place; None makes one.
            threads: that may share the product; None for `OMP_NUM_THREADS` or the cores of this process.

        Raises:
            InputError: shapes or types do not fit.
        """
        kind = np.dtype(np.float32) if self.values.dtype == np.float16 else self.values.dtype
        if x.ndim != 2 or x.shape[0] != self.shape[1] or x.dtype != kind or kind.char not in "fd":
            raise InputError(f"X is {x.shape} {x.dtype}; this product needs ({self.shape[1]}, k) {kind}")
        result = np.empty((self.shape[0], x.shape[1]), x.dtype) if out is None else out
        if result.shape != (self.shape[0], x.shape[1]) or result.dtype != x.dtype:
            raise InputError(f"out is {result.shape} {result.dtype}, not {(self.shape[0], x.shape[1])} {x.dtype}")
        if result.size:
            target = result if has_rows(result) else np.empty(result.shape, x.dtype)
            self._walk(x.shape[1], threads or num_threads()).run(np.ascontiguousarray(x), target, False)
            if target is not result:
                result[...] = target
        return result

    def _walk(self, width: int, threads: int) -> Walk:
        walk = self._walks.get((width, threads))
        if walk is None:
            with one_process():
                walk = self._walks[width, threads] = self._made_walk(width, threads)
        return walk

    def _made_walk(self, width: int, threads: int) -> Walk:
        from sparsecomm.kernels.form import Form, fuses
        from sparsecomm.kernels.structured_loops import structured_rows, widest_tile

        half = self.values.dtype == np.float16
        values = self.values.view(np.uint16) if half else self.values
        kind = np.dtype(np.float32) if half else values.dtype
        threads, full, parts = useful_threads(values.size, width, threads), widest_tile(self.m, kind.itemsize), []
        cuts = np.linspace(0, self.shape[0], max(threads, self.shape[0] // _PART_ROWS) + 1).astype(int).tolist()
        for left, columns, tiles in ((0, full, width // full), (width // full * full, width % full, 1)):
            if columns and tiles:
                form = Form.of(columns, kind.itemsize, fused=fuses())
                loop, rest = structured_rows(form, kind.char, values.dtype.char), form.cut(columns)[1]
                parts += [(loop, (first, last, left, tiles, rest)) for first, last in pairwise(cuts)]
        walk = Walk(parts, threads)
        walk.hold({frame.VALUES: np.ascontiguousarray(values), frame.COLUMNS: np.ascontiguousarray(self.columns)})
        walk.hold({frame.INDICES: np.append(self.offsets, np.zeros(_READ_PAST, np.uint8))})
        walk.frame[[frame.NONZEROS, frame.KEPT, frame.GROUP]] = values.shape[1], self.n, self.m
        walk.frame[[frame.BITS, frame.SHARING, frame.WIDTH]] = _offset_bits(self.m, self.v), self.v, self.shape[1]
        return walk


def parse_pattern(text: str) -> tuple[int, int, int]:
    """Return n, m and v of `2:4` or `64:2:8` (v is 0 for N:M).

    Raises:
        InputError: the text is neither.
    """
    words = text.split(":")
    if len(words) not in (2, 3) or not all(word.isdecimal() for word in words):
        raise InputError(f"pattern {text!r} is neither N:M, as 2:4, nor V:N:M, as 64:2:8")
    numbers = [int(word) for word in words]
    return numbers[-2], numbers[-1], numbers[0] if len(words) == 3 else 0


def _check(dense: Dense, n: int, m: int, v: int) -> None:
    if dense.ndim != 2 or dense.dtype.kind != "f":
        raise InputError(f"weights must be a matrix of a floating type, not {dense.shape} {dense.dtype}")
    places = _SHARED if v else m
    if not (1 <= n <= places and m >= places and (v or m & (m - 1) == 0) and m <= 256):
        raise InputError(
            f"pattern {n}:{m} with V = {v} cannot be: N:M needs 1 <= N <= M and M a power of two up to 256, V:N:M "
            f"needs N <= {_SHARED} <= M <= 256"
        )


def _shared_columns(grouped: Dense, v: int) -> npt.NDArray[np.int64]:
    """Return the four columns of every group that hold most in the rows of a block, ascending: (blocks, groups, 4)."""
    rows, groups, m = grouped.shape
    blocks = -(-rows // v)
    padded = np.zeros((blocks * v, groups, m), np.float64)
    padded[:rows] = np.abs(grouped)
    weight = padded.reshape(blocks, v, groups, m).sum(axis=1)
    return np.sort(np.argsort(-weight, axis=2, kind="stable")[:, :, :_SHARED], axis=2)


def _offset_bits(m: int, v: int) -> int:
    return ((_SHARED if v else m) - 1).bit_length()


def _pack_bits(places: npt.NDArray[np.int64], bits: int) -> Bits:
    """Write every place in so many bits, the first in the lowest bits of the first byte of its row."""
    spread = (places[:, :, None] >> np.arange(bits) & 1).astype(np.uint8)
    return np.packbits(spread.reshape(len(places), places.shape[1] * bits), axis=1, bitorder="little")


def _unpack_bits(packed: Bits, count: int, bits: int) -> npt.NDArray[np.int64]:
    spread = np.unpackbits(packed, axis=1, count=count * bits, bitorder="little").reshape(len(packed), count, bits)
    places: npt.NDArray[np.int64] = (spread.astype(np.int64) << np.arange(bits)).sum(axis=2)
    return places
