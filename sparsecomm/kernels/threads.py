"""Threads of one process that share a product; they run loops that let go of the interpreter."""

from __future__ import annotations

import os
import platform
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from threading import Lock, Thread

Part = Callable[[], None]


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


def run_parts(parts: Iterable[Part], threads: int) -> None:
    """Run all parts, each on one of `threads` threads; this thread is one of them.

    Raises:
        Exception: what the first part that failed raised; parts that had not begun are left out.
    """
    remaining = iter(list(parts))
    helpers = _workers(threads - 1) if threads > 1 else []
    ends: SimpleQueue[BaseException | None] = SimpleQueue()
    for inbox in helpers:
        inbox.put((remaining, ends))
    errors = [_drain(remaining), *(ends.get() for _ in helpers)]
    for error in errors:
        if error is not None:
            raise error


def _drain(remaining: Iterator[Part]) -> BaseException | None:
    """Run what is left; a list's iterator gives every part to one thread only."""
    try:
        for part in remaining:
            part()
    except BaseException as error:
        for _ in remaining:
            pass
        return error
    return None


_Inbox = SimpleQueue[tuple[Iterator[Part], "SimpleQueue[BaseException | None]"]]
_inboxes: list[_Inbox] = []
_lock = Lock()


def _workers(count: int) -> list[_Inbox]:
    """Return the inboxes of helping threads, started where there are too few."""
    with _lock:
        while len(_inboxes) < count:
            inbox: _Inbox = SimpleQueue()
            Thread(target=_serve, args=(inbox,), name="sparsecomm-product", daemon=True).start()
            _inboxes.append(inbox)
    return _inboxes[:count]


def _serve(inbox: _Inbox) -> None:
    while True:
        remaining, ends = inbox.get()
        ends.put(_drain(remaining))


# A forked child has none of its parent's threads.
os.register_at_fork(after_in_child=_inboxes.clear)
