"""The product by compiled loops that keep sums in vector registers, on several threads."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from sparsecomm.kernels import frame
from sparsecomm.kernels.compiling import one_process
from sparsecomm.kernels.epilogue import Epilogue
from sparsecomm.kernels.plain import Plain
from sparsecomm.kernels.sliced import Sliced
from sparsecomm.kernels.threads import num_threads
from sparsecomm.kernels.tuning import TUNED_WORK, Setting, choose_setting
from sparsecomm.kernels.walk import Parts, Walk

Dense = npt.NDArray[Any]
Indices = npt.NDArray[np.int32 | np.int64]

DTYPES: Final = frozenset("fd")
# Nanoseconds that every thread must have to do: handing parts to one that is awake takes about one, waking it ten.
_THREAD_NS: Final = 20_000
# What a nonzero takes on one thread, about: with one column, and for every one more.
_NONZERO_NS, _COLUMN_NS = 0.3, 0.08
# Products with one vector after which slices are made: making them takes about as long, of few nonzeros longer.
_VECTORS: Final = 20
_VECTORS_OF_FEW: Final = 500
# Parts for each thread, so that one that was held up leaves some to others.
_PARTS: Final = 4
_UNTUNED: Final = Setting(lines=True)
# Nonzeros that scipy multiplies with a vector until it has done so often.
_FEW_NONZEROS: Final = 1 << 12
_FEW: Final = 256  # values that tell most matrices whose values differ
_LINE_BYTES: Final = 64


class Tiled:
    """Multiplies rows of a matrix of float32 or float64.

    Args:
        matrix: (m, n); its arrays are read, not copied. Its values may be replaced, not its structure.
        threads: that may share one product; None for `OMP_NUM_THREADS` or the cores of this process.
        fused: round each product together with its sum: up to a tenth faster.

    Results do not depend on the number of threads. They equal scipy's, bit for bit, unless `fused`.
    """

    def __init__(self, matrix: csr_array[Any], threads: int | None = None, *, fused: bool = False) -> None:
        self.threads, self._fused, self._uniform = threads or num_threads(), fused, False
        self._walks: dict[tuple[Any, ...], Walk] = {}
        self._settings: dict[int, Setting] = {}
        self.update(matrix)

    def update(self, matrix: csr_array[Any]) -> None:
        """Take a matrix of the same structure with other values."""
        self.matrix, self.nnz, self.dtype, self.num_rows = matrix, int(matrix.nnz), matrix.dtype, matrix.shape[0]
        indices = np.ascontiguousarray(matrix.indices, matrix.indptr.dtype)
        self._nonzeros, self._plain = (indices, np.ascontiguousarray(matrix.data)), Plain(matrix)
        if self._uniform != is_uniform(matrix.data):
            self._uniform = not self._uniform
            self._walks.clear()
        for walk in self._walks.values():
            walk.hold(dict(zip((frame.INDICES, frame.VALUES), self._nonzeros, strict=True)))
        self._slices: Sliced | None = None
        self._vectors, self._vector_threads = 0, useful_threads(self.nnz, 1, self.threads)

    def fits(self, x: Dense, out: Dense) -> bool:
        """Say whether the loops are made for these blocks."""
        dtype = self.dtype
        return dtype.char in DTYPES and x.dtype == dtype == out.dtype and has_rows(x) and has_rows(out)

    def multiply(
        self,
        x: Dense,
        out: Dense,
        first: int,
        last: int,
        *,
        keep: bool = False,
        epilogue: Epilogue | None = None,
        setting: Setting | None = None,
    ) -> None:
        """Compute `out = matrix[first:last] @ x`, added to what is there if `keep`; then the epilogue.

        `setting` is how to walk through it; None is what was measured to be best.
        """
        if not out.size:
            return
        if x.shape[1] == 1:
            self._multiply_vector(x, out, first, last, keep)
            if epilogue is not None:
                epilogue.apply(out)
            return
        if setting is None:
            setting = self._best_setting(x)
            if last - first < self.num_rows or keep or epilogue is not None:
                setting = Setting(setting.ahead)
        shifted = setting.lines and _begins_within_lines(x)
        if not ((shifted or setting.streamed) and _is_of_lines(out)):
            setting = Setting(setting.ahead)
        walk = self._walk(x, first, last, setting, shifted, epilogue is not None)
        if epilogue is None:
            walk.run(x, out, keep)
        else:
            self._run_finished(walk, x, out, first, last, keep, epilogue)

    def _multiply_vector(self, x: Dense, out: Dense, first: int, last: int, keep: bool) -> None:
        """Multiply with one column: by slices, once the matrix has been used often enough to pay for making them."""
        slices = (self._slices or self._made_slices()) if last - first == self.num_rows else None
        if slices is not None and out.flags.c_contiguous and x.flags.c_contiguous:
            slices.multiply(x, out, self._vector_threads, keep=keep)
            return
        nnz = int(self.matrix.indptr[last] - self.matrix.indptr[first])
        if useful_threads(nnz, 1, self.threads) == 1:
            self._plain.multiply(x, out, first, last, keep=keep)
        else:
            self._walk(x, first, last, Setting()).run(x, out, keep)

    def _walk(
        self, x: Dense, first: int, last: int, setting: Setting, shifted: bool = False, finish: bool = False
    ) -> Walk:
        key = (first, last, x.shape[1], setting, shifted, finish, x.itemsize)
        walk = self._walks.get(key)
        if walk is None:
            with one_process():
                walk = self._walks[key] = self._gather_walk(x, first, last, setting, shifted, finish)
        return walk

    def _made_slices(self) -> Sliced | None:
        self._vectors += 1
        enough = vectors_before_slices(self.matrix)
        if enough is not None and self._vectors > enough:
            self._slices = Sliced(self.matrix, self._uniform)
        return self._slices

    def _best_setting(self, x: Dense) -> Setting:
        """Return the setting for blocks of this width, measured at first use."""
        width = x.shape[1]
        if self.nnz * width < TUNED_WORK:
            return _UNTUNED
        if width not in self._settings:
            scratch = np.empty((self.num_rows, width), x.dtype)

            def run(setting: Setting, first: int, last: int) -> None:
                self.multiply(x, scratch[first:last], first, last, setting=setting)

            self._settings[width] = choose_setting(self.matrix, width, self.threads, run)
        return self._settings[width]

    def multiply_transposed(self, x: Dense, out: Dense) -> None:
        """Compute `out = matrix.T @ x` without building the transposed matrix; threads share its rows."""
        out[...] = 0
        if out.size:
            key = (x.shape[1], x.itemsize)
            walk = self._walks.get(key)
            if walk is None:
                with one_process():
                    walk = self._walks[key] = self._scatter_walk(x)
            walk.run(x, out, True)

    def _run_finished(
        self, walk: Walk, x: Dense, out: Dense, first: int, last: int, keep: bool, epilogue: Epilogue
    ) -> None:
        """Run a walk whose loops apply biases and bounds."""
        row_bias, column_bias = epilogue.biases((self.matrix.shape[0], x.shape[1]), x.dtype)
        biases = np.ascontiguousarray(row_bias[first:last]), np.ascontiguousarray(column_bias)
        own = walk.frame.copy()
        frame.set_finish(own, *biases, x.dtype.type([epilogue.lower, epilogue.upper]))
        walk.run(x, out, keep, own)

    def _gather_walk(self, x: Dense, first: int, last: int, setting: Setting, shifted: bool, finish: bool) -> Walk:
        from sparsecomm.kernels.form import Form
        from sparsecomm.kernels.loops import gather_rows
        from sparsecomm.kernels.stream_loops import stream_rows

        indptr, width = np.ascontiguousarray(self.matrix.indptr[first : last + 1]), x.shape[1]
        threads = useful_threads(int(indptr[-1] - indptr[0]), width, self.threads)
        rows, panel = [(0, last - first)], width
        if threads > 1 and _is_skewed(indptr, threads) and width >= 16 * threads:
            panel = _panel(width, threads)  # a row that one thread would be busy with: share the columns instead
        elif threads > 1:
            rows = list(pairwise(cut_rows(indptr, threads * _PARTS)))
        parts = []
        for left, columns in _panels(width, panel):
            form = Form.of(
                columns,
                x.itemsize,
                prefetch=setting.ahead > 0,
                finish=finish,
                fused=self._fused and width > 1,  # scipy's bits, as slices have
                uniform=self._uniform,
            )
            kinds = x.dtype.char, indptr.dtype.char
            whole = setting.lines and columns == width
            loop = stream_rows(form, *kinds, shifted, setting.streamed) if whole else gather_rows(form, *kinds)
            parts += [(loop, (begin, end, left, *form.cut(columns))) for begin, end in rows]
        walk = self._walk_of(parts, threads, indptr)
        walk.frame[[frame.NONZEROS, frame.AHEAD]] = self.nnz, setting.ahead
        return walk

    def _scatter_walk(self, x: Dense) -> Walk:
        from sparsecomm.kernels.form import Form
        from sparsecomm.kernels.scatter_loops import scatter_rows

        width, form = x.shape[1], Form.of(x.shape[1], x.itemsize)
        # A part has some columns of the matrix, so no two add to the same row of the result.
        threads = useful_threads(self.nnz, width, self.threads) if self.matrix.has_sorted_indices else 1
        bounds = _column_bounds(self.matrix, threads)
        loop, rows = scatter_rows(form, x.dtype.char, bounds.dtype.char), self.num_rows
        parts = [(loop, (at * rows, (at + 1) * rows, 0, *form.cut(width))) for at in range(len(bounds) - 1)]
        return self._walk_of(parts, threads, bounds)

    def _walk_of(self, parts: Parts, threads: int, starts: Indices) -> Walk:
        walk = Walk(parts, threads)
        walk.hold(dict(zip((frame.STARTS, frame.INDICES, frame.VALUES), (starts, *self._nonzeros), strict=True)))
        return walk


def useful_threads(nnz: int, width: int, threads: int) -> int:
    """Return how many of the threads are worth waking for so many nonzeros and columns."""
    return max(1, min(threads, int(nnz * (_NONZERO_NS + _COLUMN_NS * width) / _THREAD_NS)))


def vectors_before_slices(matrix: csr_array[Any]) -> int | None:
    """Return after how many products with a vector slices are made; None if they never are."""
    if not Sliced.suits(matrix):
        return None
    return _VECTORS_OF_FEW if matrix.nnz <= _FEW_NONZEROS else _VECTORS


def cut_rows(indptr: Indices, parts: int) -> list[int]:
    """Return where to cut the rows so that every part has about the same nonzeros; the first is 0."""
    inner = np.searchsorted(indptr, np.linspace(indptr[0], indptr[-1], parts + 1)[1:-1])
    return sorted({0, *inner.tolist(), indptr.size - 1})


def _column_bounds(matrix: csr_array[Any], parts: int) -> Indices:
    """Return where the nonzeros of parts begin in every row: (parts + 1, rows); each has about as many in all.

    Part i has the columns, ascending in each row, whose nonzeros are `bounds[i]` to `bounds[i + 1]`.
    """
    indptr, indices = matrix.indptr, matrix.indices
    bounds = [indptr[:-1], indptr[1:]]
    if parts > 1:
        below = np.concatenate([[0], np.cumsum(np.bincount(indices, minlength=matrix.shape[1]))])
        for cut in cut_rows(below, parts)[1:-1]:
            left = np.concatenate([[0], np.cumsum(indices < cut)])
            bounds.insert(-1, indptr[:-1] + left[indptr[1:]] - left[indptr[:-1]])
    return np.ascontiguousarray(bounds, indptr.dtype)


def _is_of_lines(out: Dense) -> bool:
    """Say whether the rows of a result follow each other, and are one tile of as many bytes as whole cache lines."""
    return out.flags.c_contiguous and _is_one_tile(out.shape[1], out.itemsize)


@cache
def _is_one_tile(width: int, itemsize: int) -> bool:
    from sparsecomm.kernels.form import Form, vector_unit

    form = Form.of(width, itemsize)
    return form.lanes * itemsize == vector_unit()[0] == _LINE_BYTES and form.cut(width) == (1, 0)


def _begins_within_lines(x: Dense) -> bool:
    """Say whether all rows begin at the same byte of a cache line, not its first, and have at least two lines."""
    long = x.shape[1] * x.itemsize >= 2 * _LINE_BYTES and x.strides[0] % _LINE_BYTES == 0
    return long and frame.address(x) % _LINE_BYTES > 0


def is_uniform(values: Dense) -> bool:
    """Say whether all values are the same, bit for bit; the answer is soon there where they are not."""
    if values.dtype.char not in DTYPES or not values.size or not values.flags.c_contiguous:
        return False
    words = values.view(np.uint32 if values.itemsize == 4 else np.uint64)
    return bool((words[:_FEW] == words[0]).all() and (words == words[0]).all())


def has_rows(block: Dense) -> bool:
    """Say whether the entries of a row lie side by side."""
    return block.flags.aligned and (block.shape[1] == 1 or block.strides[1] == block.itemsize)


def _is_skewed(indptr: Indices, threads: int) -> bool:
    """Say whether one row holds so much that threads with whole rows cannot finish together."""
    return int(np.diff(indptr).max(initial=0)) * threads > 1.2 * int(indptr[-1] - indptr[0])


def _panel(width: int, threads: int) -> int:
    """Return the columns that each thread gets: whole registers."""
    return -(-width // (16 * threads)) * 16


def _panels(width: int, panel: int) -> Iterator[tuple[int, int]]:
    """Yield the first column and the width of every panel."""
    return ((left, min(panel, width - left)) for left in range(0, width, panel))
