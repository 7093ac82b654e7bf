"""Compiling loops while no other process of this machine compiles any: the others wait, and load what it stored."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from sparsecomm.kernels.cache import cache_folder


@contextmanager
def one_process() -> Iterator[None]:
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
