"""Compiling loops while no other process of this machine compiles any: the others wait, and load what it stored."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sparsecomm.kernels.cache import cache_folder


def compile_alone(loop: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Compile a loop for these arguments."""
    from numba import typeof

    types = tuple(typeof(argument) for argument in arguments)  # type: ignore[no-untyped-call]
    with one_process():
        loop.compile(types)  # type: ignore[attr-defined]


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
