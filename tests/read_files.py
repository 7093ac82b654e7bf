"""What a matrix that was read must be, and what a file that was refused is answered with."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import pytest
import scipy.sparse as sp

from sparsecomm.errors import InputError
from sparsecomm.io import read_matrix

MTX = "%%MatrixMarket matrix coordinate real general\n"


class Write(Protocol):
    def __call__(self, name: str, content: str | bytes) -> str: ...


def check_canonical(matrix: Any) -> None:
    assert isinstance(matrix, sp.csr_array)
    assert matrix.has_canonical_format
    assert sp.csr_array((matrix.data, matrix.indices, matrix.indptr), shape=matrix.shape).has_canonical_format
    assert matrix.indices.dtype == matrix.indptr.dtype == np.int32
    assert np.isfinite(matrix.data).all()


def assert_equal(matrix: Any, expected: Any) -> None:
    """Same shape, same places (explicit zeros are places), same values."""
    check_canonical(matrix)
    expected = sp.csr_array(expected)
    expected.sum_duplicates()
    assert matrix.shape == expected.shape
    np.testing.assert_array_equal(matrix.indptr, expected.indptr)
    np.testing.assert_array_equal(matrix.indices, expected.indices)
    np.testing.assert_array_equal(matrix.data, expected.data)


def error(path: str, **options: Any) -> str:
    """Return the message of the InputError that reading `path` raises; it names the file and is short."""
    with pytest.raises(InputError) as caught:
        read_matrix(path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert len(message) - len(path) < 400
    assert "\n" not in message.removeprefix(path)
    return message


def peak_bytes(act: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
