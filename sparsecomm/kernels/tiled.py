"""The product by compiled loops that keep sums in vector registers, on several threads."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from sparsecomm.kernels.cache import cache_folder
from sparsecomm.kernels.epilogue import Epilogue
from sparsecomm.kernels.plain import Plain
from sparsecomm.kernels.sliced import Sliced
from sparsecomm.kernels.threads import num_threads, run_parts
from sparsecomm.kernels.tuning import TUNED_WORK, Setting, choose_setting

Dense = npt.NDArray[Any]
Indices = npt.NDArray[np.int32 | np.int64]

DTYPES: Final = frozenset("fd")
# Nanoseconds that every thread must have to do: waking it takes 10 us, on a virtual machine more than 100.
_THREAD_NS: Final = 200_000
# What a nonzero takes on one thread, about: with one column, and for every one more.
_NONZERO_NS, _COLUMN_NS = 0.3, 0.08
# Products with one vector after which slices are made: making them takes about as long.
_VECTORS: Final = 20
# Parts for each thread, so that one that was held up leaves some to others.
_PARTS: Final = 4
_UNTUNED: Final = Setting(lines=True)
# Nonzeros that scipy multiplies with a vector before anything else is decided.
_FEW_NONZEROS: Final = 1 << 12
_FEW: Final = 256  # values that tell most matrices whose values differ
_LINE_BYTES: Final = 64
_NO_FINISH: Final = {
    char: (np.empty(0, char), np.empty(0, char), np.dtype(char).type(-np.inf), np.dtype(char).type(np.inf))
    for char in DTYPES
}


class _Walk(NamedTuple):
    """What a product of some rows and some width is made of: loops, and the tiles and rows of each."""

    indptr: Indices
    threads: int
    parts: tuple[tuple[Callable[..., None], tuple[int, int, int, int, int]], ...]


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
        self._walks: dict[tuple[Any, ...], _Walk] = {}
        self._settings: dict[int, Setting] = {}
        self.update(matrix)

    def update(self, matrix: csr_array[Any]) -> None:
        """Take a matrix of the same structure with other values."""
        self.matrix, self.nnz, self.dtype, self.num_rows = matrix, int(matrix.nnz), matrix.dtype, matrix.shape[0]
        self._nonzeros, self._plain = (matrix.indices, matrix.data), Plain(matrix)
        if self._uniform != is_uniform(matrix.data):
            self._uniform = not self._uniform
            self._walks.clear()
        self._slices: Sliced | None = None
        self._vectors = 0

    def fits(self, x: Dense, out: Dense) -> bool:
        """Say whether the loops are made for these blocks."""
        dtype = self.dtype
        return dtype.char in DTYPES and x.dtype == dtype == out.dtype and _has_rows(x) and _has_rows(out)

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
        key = (first, last, x.shape[1], setting, shifted, epilogue is None, x.flags.num, out.flags.num, x.itemsize)
        after = (keep, setting.ahead, *self._finish(epilogue, x, first, last))
        walk = self._walks.get(key)
        if walk is None:
            walk = self._gather_walk(x, first, last, setting, shifted, epilogue is not None)
            self._walks[key] = self._compiled(walk, (x, out), after)
        self._run(walk, (x, out), after)

    def _multiply_vector(self, x: Dense, out: Dense, first: int, last: int, keep: bool) -> None:
        """Multiply with one column: by slices, once the matrix has been used often enough to pay for making them."""
        if self.nnz <= _FEW_NONZEROS:
            self._plain.multiply(x, out, first, last, keep=keep)
            return
        slices = self._made_slices() if last - first == self.num_rows else None
        if slices is not None and out.flags.c_contiguous and x.flags.c_contiguous:
            slices.multiply(x.reshape(-1), out.reshape(-1), useful_threads(self.nnz, 1, self.threads), keep=keep)
            return
        plain, indptr = self._plain, self.matrix.indptr[first : last + 1]
        threads = useful_threads(int(indptr[-1] - indptr[0]), 1, self.threads)
        cuts = cut_rows(indptr, threads * _PARTS) if threads > 1 else [0, last - first]
        run_parts(
            [partial(plain.multiply, x, out[a:b], first + a, first + b, keep=keep) for a, b in pairwise(cuts)], threads
        )

    def _made_slices(self) -> Sliced | None:
        self._vectors += 1
        if self._slices is None and self._vectors > _VECTORS and Sliced.suits(self.matrix):
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
        """Compute `out = matrix.T @ x` without building the transposed matrix; threads share the columns of X."""
        out[...] = 0
        if out.size:
            key = ("transposed", x.shape[1], x.flags.num, out.flags.num, x.itemsize)
            walk = self._walks.get(key)
            if walk is None:
                walk = self._walks[key] = self._compiled(self._scatter_walk(x), (x, out), ())
            self._run(walk, (x, out), ())

    def _compiled(self, walk: _Walk, blocks: tuple[Dense, Dense], after: tuple[Any, ...]) -> _Walk:
        """Compile the loops of a walk for these blocks, and return it."""
        for loop, places in walk.parts:
            compile_alone(loop, (walk.indptr, *self._nonzeros, *blocks, *places, *after))
        return walk

    def _run(self, walk: _Walk, blocks: tuple[Dense, Dense], after: tuple[Any, ...]) -> None:
        arrays = (walk.indptr, *self._nonzeros, *blocks)
        if walk.threads == 1:
            for loop, places in walk.parts:
                loop(*arrays, *places, *after)
        else:
            run_parts([partial(loop, *arrays, *places, *after) for loop, places in walk.parts], walk.threads)

    def _finish(self, epilogue: Epilogue | None, x: Dense, first: int, last: int) -> tuple[Any, ...]:
        """Return the biases and bounds that the loops take."""
        if epilogue is None:
            return _NO_FINISH[x.dtype.char]
        row_bias, column_bias = epilogue.biases((self.matrix.shape[0], x.shape[1]), x.dtype)
        return row_bias[first:last], column_bias, x.dtype.type(epilogue.lower), x.dtype.type(epilogue.upper)

    def _gather_walk(self, x: Dense, first: int, last: int, setting: Setting, shifted: bool, finish: bool) -> _Walk:
        from sparsecomm.kernels.form import Form
        from sparsecomm.kernels.loops import gather_rows
        from sparsecomm.kernels.stream_loops import stream_rows

        indptr, width = self.matrix.indptr[first : last + 1], x.shape[1]
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
                fused=self._fused,
                uniform=self._uniform,
            )
            whole = setting.lines and columns == width
            loop = stream_rows(form, shifted, setting.streamed) if whole else gather_rows(form)
            parts += [(loop, (begin, end, left, *form.cut(columns))) for begin, end in rows]
        return _Walk(indptr, threads, tuple(parts))

    def _scatter_walk(self, x: Dense) -> _Walk:
        from sparsecomm.kernels.form import Form
        from sparsecomm.kernels.loops import scatter_rows

        rows, width = self.matrix.shape[0], x.shape[1]
        threads = min(useful_threads(self.nnz, width, self.threads), -(-width // 16))
        parts = []
        for left, columns in _panels(width, _panel(width, threads)):
            form = Form.of(columns, x.itemsize)
            parts.append((scatter_rows(form), (0, rows, left, *form.cut(columns))))
        return _Walk(self.matrix.indptr, threads, tuple(parts))


def useful_threads(nnz: int, width: int, threads: int) -> int:
    """Return how many of the threads are worth waking for so many nonzeros and columns."""
    return max(1, min(threads, int(nnz * (_NONZERO_NS + _COLUMN_NS * width) / _THREAD_NS)))


def cut_rows(indptr: Indices, parts: int) -> list[int]:
    """Return where to cut the rows so that every part has about the same nonzeros; the first is 0."""
    inner = np.searchsorted(indptr, np.linspace(indptr[0], indptr[-1], parts + 1)[1:-1])
    return sorted({0, *inner.tolist(), indptr.size - 1})


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
    begin = x.__array_interface__["data"][0] % _LINE_BYTES
    return begin > 0 and x.strides[0] % _LINE_BYTES == 0 and x.shape[1] * x.itemsize >= 2 * _LINE_BYTES


def is_uniform(values: Dense) -> bool:
    """Say whether all values are the same, bit for bit; the answer is soon there where they are not."""
    if values.dtype.char not in DTYPES or not values.size or not values.flags.c_contiguous:
        return False
    words = values.view(np.uint32 if values.itemsize == 4 else np.uint64)
    return bool((words[:_FEW] == words[0]).all() and (words == words[0]).all())


def _has_rows(block: Dense) -> bool:
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


def compile_alone(loop: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Compile a loop for these arguments while no other process of this machine compiles one.

    The first process stores machine code; the others, which wait, load it.
    """
    from numba import typeof

    types = tuple(typeof(argument) for argument in arguments)  # type: ignore[no-untyped-call]
    with _one_process():
        loop.compile(types)  # type: ignore[attr-defined]


@contextmanager
def _one_process() -> Iterator[None]:
    """Hold a lock of the user's cache folder; where there is none to be had, go on without."""
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(folder / "compile.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        yield
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)
