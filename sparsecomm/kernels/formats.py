"""Formats of weights by name: what they take, how they are packed, and what multiplies them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from sparsecomm.errors import InputError
from sparsecomm.kernels.prepared import prepare
from sparsecomm.kernels.structured import Structured, parse_pattern

Dense = npt.NDArray[Any]

_log = logging.getLogger("sparsecomm")


@dataclass(frozen=True, slots=True)
class Format:
    """A format of a weight matrix.

    Args:
        name: of the format.
        pack: packs a dense matrix; what it drops is dropped from the product too.
        unpack: returns the CSR matrix that a packed one holds.
        footprint: returns the bytes of a packed matrix.
        spmm: returns packed @ x; None to multiply the unpacked matrix, with one warning.
    """

    name: str
    pack: Callable[[Dense], Any]
    unpack: Callable[[Any], csr_array[Any]]
    footprint: Callable[[Any], int]
    spmm: Callable[[Any, Dense], Dense] | None = None

    def multiply(self, packed: Any, x: Dense) -> Dense:
        """Return `packed @ x`."""
        if self.spmm is not None:
            return self.spmm(packed, x)
        if self.name not in _warned:
            _warned.add(self.name)
            _log.warning(
                "format %s has no product of its own: its matrices are unpacked for every product; give `spmm`",
                self.name,
            )
        return prepare(self.unpack(packed)).multiply(x)


_formats: dict[str, Format] = {}
_warned: set[str] = set()


def register_format(new: Format) -> None:
    """Add a format.

    Raises:
        ValueError: the name is taken, or is a pattern such as 2:4.
    """
    if new.name in _formats or ":" in new.name:
        raise ValueError(f"a format named {new.name!r} exists already; give another name, without colons")
    _formats[new.name] = new


def get_format(name: str) -> Format:
    """Return a format: a registered one, `csr`, or a pattern as 2:4 or 64:2:8.

    Raises:
        InputError: there is none of that name.
    """
    if name in _formats:
        return _formats[name]
    if ":" not in name:
        raise InputError(f"no format {name!r}; there are {', '.join(sorted(_formats))}, and patterns as 2:4 or 64:2:8")
    n, m, v = parse_pattern(name)
    return Format(
        name,
        pack=lambda dense: Structured.pack(dense, n, m, v),
        unpack=Structured.to_csr,
        footprint=lambda packed: int(packed.num_bytes),
        spmm=Structured.multiply,
    )


def _csr_bytes(packed: csr_array[Any]) -> int:
    return int(packed.data.nbytes + packed.indices.nbytes + packed.indptr.nbytes)


register_format(
    Format(
        "csr",
        pack=lambda dense: csr_array(np.asarray(dense)),
        unpack=lambda packed: packed,
        footprint=_csr_bytes,
        spmm=lambda packed, x: prepare(packed).multiply(x),
    )
)
