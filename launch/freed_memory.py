"""Freed memory, kept by the process for its next arrays."""

from __future__ import annotations

import ctypes
from typing import Final

# Numbers of glibc's malloc.h.
_TRIM_THRESHOLD: Final = -1
_MMAP_MAX: Final = -4


def keep_freed_memory() -> None:
    """Let large arrays come from memory that was freed before, and not anew from the system each time.

    Planning makes hundreds of arrays of 100 MB one after the other, and the system clears every page of each. Does
    nothing where the C library has no such options.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)  # never: beyond any threshold, pages are given back and cleared all the time
