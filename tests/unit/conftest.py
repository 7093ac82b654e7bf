"""What several tests begin with: files, matrices, and what stands for a GPU."""

from __future__ import annotations

import gzip
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, settings

from tests.read_files import Write

# The same examples in every run, and none too slow: a suite fails for what is in the code, and for nothing else.
settings.register_profile(
    "sure", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("sure")


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


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What stands for CuPy; every thread is a process to the driver."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    from sparsecomm.collectives import device
    from sparsecomm.collectives.transport import ipc
    from sparsecomm.kernels import cuda
    from tests import cpu_cupy

    module = cpu_cupy.module()
    for name, stand_in in {"cupy": module, **cpu_cupy.cupyx()}.items():
        monkeypatch.setitem(sys.modules, name, stand_in)
    monkeypatch.setattr(ipc, "process_token", lambda: threading.get_ident().to_bytes(16, "little"))
    for made in (device.row_kernel, cuda.compiled):
        made.cache_clear()
    yield module
    assert module.memory.left == 0, "memory or handles were not given back"
    for made in (device.row_kernel, cuda.compiled):
        made.cache_clear()
