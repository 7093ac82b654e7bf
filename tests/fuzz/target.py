"""What is under fire: a reader, and what makes its inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import scipy.sparse as sp


@dataclass(frozen=True)
class Target:
    """A reader under fire.

    Args:
        name: of the reader.
        write: puts input number `seed` into a folder and returns the bytes it holds, unpacked.
        read: reads it; returns, raises `InputError`, or has failed.
    """

    name: str
    write: Callable[[Random, Path], int]
    read: Callable[[Path], None]


def check_matrix(matrix: sp.csr_array) -> None:
    assert isinstance(matrix, sp.csr_array)
    assert matrix.has_canonical_format
    assert matrix.has_sorted_indices
    assert np.isfinite(matrix.data).all()
    matrix.check_format(full_check=True)
