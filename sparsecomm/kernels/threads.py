"""How many threads a product may use, and by which clock it is timed."""

from __future__ import annotations

import os
import platform
import time
import zlib
from collections.abc import Callable


def num_threads(sharers: int = 1) -> int:
    """Return how many threads a product may use: `OMP_NUM_THREADS`, else the cores that this process is bound to.

    Args:
        sharers: processes, or ranks in threads, that are bound to the same cores.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return max(1, int(asked) if asked.isdecimal() else len(os.sched_getaffinity(0)) // sharers)


def clock(threads: int) -> Callable[[], float]:
    """Return what to read times from: that of this thread, where it works alone: others use the machine too."""
    return time.thread_time if threads == 1 else time.perf_counter


def cores_key() -> int:
    """Return a number that is the same for those who are bound to the same cores of the same machine."""
    return zlib.crc32(f"{platform.node()} {sorted(os.sched_getaffinity(0))}".encode())
