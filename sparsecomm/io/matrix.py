"""`read_matrix`: a file or a generator, by name, as one canonical CSR matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy.typing as npt

from sparsecomm.errors import InputError
from sparsecomm.io.csr import Matrix, canonical
from sparsecomm.io.edges import read_edges
from sparsecomm.io.generators import generate, generator_forms, is_generator
from sparsecomm.io.metis import read_metis
from sparsecomm.io.mtx import read_mtx
from sparsecomm.io.npz import read_npz


class Reader(Protocol):
    """Reads one file format; errors are short, `read_matrix` adds the name of the file."""

    def __call__(self, path: Path, *, one_based: bool = False) -> Matrix: ...


_READERS: dict[str, Reader] = {}


def register_reader(suffix: str, reader: Reader) -> None:
    """Read files whose names end in `suffix` (lower case, with its dot) by `reader`."""
    if suffix in _READERS:
        raise ValueError(f"suffix {suffix!r} has a reader already; expected a new one")
    _READERS[suffix] = reader


register_reader(".mtx", read_mtx)
register_reader(".mtx.gz", read_mtx)
register_reader(".npz", read_npz)
register_reader(".graph", read_metis)
register_reader(".graph.gz", read_metis)
for _name in (".txt", ".tsv", ".edges"):
    register_reader(_name, read_edges)
    register_reader(_name + ".gz", read_edges)


def read_matrix(spec: str, *, dtype: npt.DTypeLike | None = None, one_based: bool = False) -> Matrix:
    """Return the matrix that `spec` names.

    Args:
        spec: a file (`.mtx`, `.graph`, `.txt`, `.tsv`, `.edges`, each also with `.gz`, or `.npz` of scipy) or a
            generator such as `rmat:16:16:0` (see `sparsecomm.io.generators`).
        dtype: type of the values; by default 32 and 64 bit floating and complex ones stay as stored, others become
            float64, and an entry without a value is 1.0.
        one_based: vertices of an edge list are counted from 1; other formats say themselves how they count.

    Returns:
        CSR with sorted indices, duplicates summed, explicit zeros kept and finite values; indices are int32 or int64.

    Raises:
        InputError: the file or the generator is unusable, whatever the reason; the message names it.

    >>> read_matrix("grid2d:3").shape
    (9, 9)
    """
    try:
        return canonical(_load(spec, one_based), dtype)
    except InputError as err:
        raise InputError(f"{spec}: {err}") from err
    except MemoryError as err:
        raise InputError(f"{spec}: does not fit the memory of this machine; take a smaller matrix") from err
    except OSError as err:
        raise InputError(f"{spec}: cannot be read: {err.strerror or err}; check its name and permissions") from err


def _load(spec: str, one_based: bool) -> Matrix:
    if is_generator(spec):
        return generate(spec)
    if "\0" in spec:
        raise InputError("has a NUL character in its name; expected the name of a file")
    path = Path(spec)
    reader = _READERS.get(_suffix_of(path))
    if reader is None:
        kind = "is a directory" if path.is_dir() else "is neither a known file type nor a generator"
        raise InputError(f"{kind}; expected a file {' '.join(_READERS)} or a generator {' '.join(generator_forms())}")
    if not path.exists():
        raise InputError("does not exist; check the name, or give a generator such as rmat:16")
    return reader(path, one_based=one_based)


def _suffix_of(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return "".join(suffixes[-2:] if suffixes[-1:] == [".gz"] else suffixes[-1:])
