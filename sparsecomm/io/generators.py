"""Synthetic matrices by name: `rmat`, `er`, `grid2d`, `grid3d`, `grid3d27` and `radixnet`."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from sparsecomm.errors import InputError
from sparsecomm.io.csr import Matrix
from sparsecomm.io.limits import check_memory
from sparsecomm.table import run_starts
from sparsecomm.typing import Bools, IntGlobal

_MAX_DRAWS = 1 << 33
_MAX_ROWS = 1 << 31
_BLOCK = 1 << 16  # draws made at a time: fastest of 2**14 .. 2**20 (the temporaries stay in the cache)
_TOP_LEFT, _TOP_RIGHT, _BOTTOM_LEFT = 0.57, 0.19, 0.19  # the rest, 0.05, is bottom right


@dataclass(frozen=True, slots=True)
class Field:
    """One number of a generator's name, and the values it may have."""

    name: str
    low: int
    high: int
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Generator:
    """A function of the numbers in the generator's name, and what they are."""

    make: Callable[..., Matrix]
    fields: tuple[Field, ...]

    def form(self, name: str) -> str:
        """Return how the name is written, for example `rmat:SCALE[:EDGEFACTOR[:SEED]]`."""
        parts = [f"[:{field.name}" if field.optional else f":{field.name}" for field in self.fields]
        return name + "".join(parts) + "]" * sum(field.optional for field in self.fields)


_GENERATORS: dict[str, Generator] = {}


def register_generator(name: str, generator: Generator) -> None:
    """Make `name:...` a matrix that `read_matrix` knows."""
    if name in _GENERATORS:
        raise ValueError(f"generator {name!r} exists already; expected a new name")
    _GENERATORS[name] = generator


def generator_forms() -> list[str]:
    """Return how each generator is written."""
    return [generator.form(name) for name, generator in _GENERATORS.items()]


def is_generator(spec: str) -> bool:
    """Return whether `spec` begins with the name of a generator."""
    return spec.partition(":")[0] in _GENERATORS


def generate(spec: str) -> Matrix:
    """Return the matrix that a generator's name stands for.

    Raises:
        InputError: a number is missing, extra, not a whole number or out of range.

    >>> generate("radixnet:1024:0").nnz
    32768
    """
    name, *words = spec.split(":")
    generator = _GENERATORS[name]
    required = sum(not field.optional for field in generator.fields)
    if not required <= len(words) <= len(generator.fields):
        raise InputError(f"has {len(words)} numbers; expected {generator.form(name)}")
    try:
        return generator.make(*(_number(word, field) for word, field in zip(words, generator.fields, strict=False)))
    except InputError as err:
        raise InputError(f"{err}; the form is {generator.form(name)}") from err


def rmat(scale: int, edge_factor: int = 16, seed: int = 0) -> Matrix:
    """Return an R-MAT graph of 2**scale vertices from 2**scale * edge_factor draws.

    Draws that fall on one place are merged, self-loops stay, vertices are neither permuted nor is the graph
    symmetrised. The values, in CSR order, are uniform in (0, 1], so that the matrix is no more symmetric than it looks.
    The draws are made 2**16 edges at a time, one uint32 an edge for each bit of its ends, the highest bit first.

    Source: Chakrabarti, Zhan, Faloutsos, "R-MAT: a recursive model for graph mining" (2004); quadrants of Graph500.
    """
    num_draws = edge_factor << scale
    _check_draws(num_draws, 1 << scale)
    rng = np.random.default_rng(seed)
    keys = np.empty(num_draws, dtype=np.int64)
    for start in range(0, num_draws, _BLOCK):
        block = keys[start : start + _BLOCK]
        block[:] = _rmat_keys(rng, block.size, scale)
    return _from_draws(keys, 1 << scale, rng)


def erdos_renyi(num_rows: int, degree: int, seed: int = 0) -> Matrix:
    """Return a square matrix of `num_rows * degree` places drawn uniformly; draws of one place are merged.

    The values, in CSR order, are uniform in (0, 1].
    """
    _check_draws(num_rows * degree, num_rows)
    rng = np.random.default_rng(seed)
    return _from_draws(rng.integers(0, num_rows * num_rows, num_rows * degree), num_rows, rng)


def grid2d(rows: int, cols: int | None = None) -> Matrix:
    """Return the 5-point Laplacian (4 and -1, Dirichlet) of a `rows` x `cols` grid, numbered row by row."""
    return _stencil((rows, rows if cols is None else cols), star=True)


def grid3d(size: int) -> Matrix:
    """Return the 7-point Laplacian (6 and -1, Dirichlet) of a cube of `size` points a side."""
    return _stencil((size, size, size), star=True)


def grid3d27(size: int) -> Matrix:
    """Return the 27-point stencil (26 and -1) of a cube of `size` points a side."""
    return _stencil((size, size, size), star=False)


def radixnet(num_neurons: int, layer: int) -> Matrix:
    """Return base layer `layer` of the RadiX-Net of the Graph Challenge: rows = TO, columns = FROM, values 1/16.

    Row i has columns i and i + 2**layer modulo num_neurons / 16, in each of the 16 blocks: 32 in every row and column.

    Source: Kepner, Robinett, "RadiX-Net: structured sparse matrices for deep neural networks" (2019).
    """
    inner = num_neurons // 16
    if num_neurons != 16 << (inner.bit_length() - 1):
        raise InputError(f"N is {num_neurons}; expected a power of two")
    if layer >= inner.bit_length() - 1:
        raise InputError(f"LAYER is {layer}; expected 0 to {inner.bit_length() - 2} for N = {num_neurons}")
    check_memory(32 * 24 * num_neurons)
    residue = np.arange(inner, dtype=np.int64)
    pair = np.sort(np.stack([residue, (residue + (1 << layer)) % inner], axis=1), axis=1)
    blocks = np.arange(0, num_neurons, inner, dtype=np.int64)
    inner_rows = (blocks[None, :, None] + pair[:, None, :]).reshape(inner, 32)
    cols = np.tile(inner_rows, (16, 1)).ravel()
    indptr = np.arange(0, cols.size + 1, 32)
    return csr_array((np.full(cols.size, 1 / 16), cols, indptr), shape=(num_neurons, num_neurons))


_SEED = Field("SEED", 0, 10**18 - 1, optional=True)

register_generator(
    "rmat", Generator(rmat, (Field("SCALE", 1, 30), Field("EDGEFACTOR", 1, _MAX_DRAWS, optional=True), _SEED))
)
register_generator("er", Generator(erdos_renyi, (Field("N", 1, _MAX_ROWS), Field("DEGREE", 1, _MAX_DRAWS), _SEED)))
register_generator("grid2d", Generator(grid2d, (Field("N", 1, _MAX_ROWS), Field("M", 1, _MAX_ROWS, optional=True))))
register_generator("grid3d", Generator(grid3d, (Field("N", 1, 2048),)))
register_generator("grid3d27", Generator(grid3d27, (Field("N", 1, 2048),)))
register_generator("radixnet", Generator(radixnet, (Field("N", 32, _MAX_ROWS), Field("LAYER", 0, 30))))


def _number(word: str, field: Field) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", word):
        raise InputError(f"{field.name} is {word[:30]!r}; expected a whole number of {field.low} to {field.high}")
    value = int(word)
    if not field.low <= value <= field.high:
        raise InputError(f"{field.name} is {value}; expected {field.low} to {field.high}")
    return value


def _check_draws(num_draws: int, num_rows: int) -> None:
    if num_draws > _MAX_DRAWS:
        raise InputError(f"asks for {num_draws} draws; expected at most {_MAX_DRAWS} (2**33)")
    # A draw is a key, sorted and merged, then a column and a value; a row is where it begins, found by its first key.
    check_memory(32 * num_draws + 24 * num_rows)


def _rmat_keys(rng: np.random.Generator, num_edges: int, scale: int) -> IntGlobal:
    """Return row * 2**scale + column of `num_edges` draws."""
    right = np.uint32(round(_TOP_LEFT * 2**32))
    bottom = np.uint32(round((_TOP_LEFT + _TOP_RIGHT) * 2**32))
    corner = np.uint32(round((_TOP_LEFT + _TOP_RIGHT + _BOTTOM_LEFT) * 2**32))
    rows, cols = np.zeros(num_edges, dtype=np.uint32), np.zeros(num_edges, dtype=np.uint32)
    for _ in range(scale):
        draw = rng.integers(0, 2**32, num_edges, dtype=np.uint32)
        below = draw >= bottom
        rows <<= np.uint32(1)
        rows |= below
        cols <<= np.uint32(1)
        cols |= (draw >= right) ^ below ^ (draw >= corner)
    return (rows.astype(np.int64) << scale) | cols


def _from_draws(keys: IntGlobal, size: int, rng: np.random.Generator) -> Matrix:
    """Return the square matrix of the distinct places `row * size + column`; `keys` is sorted in place."""
    keys.sort()
    keys = keys[run_starts([keys])]
    indptr = np.searchsorted(keys, np.arange(size + 1) * size)
    keys %= size
    cols = keys.astype(np.int32) if size <= _MAX_ROWS else keys
    return csr_array((1.0 - rng.random(cols.size), cols, indptr), shape=(size, size))


def _stencil(shape: tuple[int, ...], *, star: bool) -> Matrix:
    """Return the stencil matrix of a grid: -1 to each neighbour, their number in the interior on the diagonal.

    Args:
        shape: points along each dimension, the last one numbered fastest.
        star: neighbours differ in one coordinate, by 1; otherwise in any of them.
    """
    size = int(np.prod([float(points) for points in shape]))
    offsets = [
        step for step in itertools.product((-1, 0, 1), repeat=len(shape)) if not star or np.count_nonzero(step) < 2
    ]
    if size > _MAX_ROWS:
        raise InputError(f"has {size} points; expected at most {_MAX_ROWS} (2**31)")
    check_memory(32 * len(offsets) * size)
    # Offsets in lexicographic order reach ascending columns, so every row comes out sorted.
    inside = np.stack([_inside(shape, step) for step in offsets], axis=1)
    strides = np.append(np.cumprod(shape[:0:-1])[::-1], 1).astype(np.int64)
    shift = np.array(offsets, dtype=np.int64) @ strides
    cols = (np.arange(size, dtype=np.int64)[:, None] + shift)[inside]
    weights = np.where(np.any(offsets, axis=1), -1.0, len(offsets) - 1.0)
    values = np.broadcast_to(weights, inside.shape)[inside]
    indptr = np.append(0, np.cumsum(np.count_nonzero(inside, axis=1)))
    return csr_array((values, cols, indptr), shape=(size, size))


def _inside(shape: tuple[int, ...], step: tuple[int, ...]) -> Bools:
    """Return for each point of the grid whether the point `step` away is in the grid too."""
    inside = np.ones(shape, dtype=np.bool_)
    for axis, move in enumerate(step):
        if move:
            edge = [slice(None)] * len(shape)
            edge[axis] = slice(0, 1) if move < 0 else slice(-1, None)
            inside[tuple(edge)] = False
    return inside.ravel()
