"""Files and matrices that several tests of readers begin with."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from tests.read_files import Write


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file, gzipped if its name says so, and return its path."""

    def write(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        data = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return str(path)

    return write


@pytest.fixture
def random_matrix() -> sp.csr_array:
    return sp.random_array((30, 20), density=0.2, rng=np.random.default_rng(7), format="csr")
