"""Threads that help with the parts of a product: awake between products that follow each other, asleep after."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from sparsecomm.kernels.frame import AWAKE, MAIL, Words

# How long a thread looks for more before it sleeps: waking takes 10 us, on a virtual machine more than 100.
_PATIENCE_S: Final = 2e-3
_LOOKS: Final = 2000


class Crew:
    """`threads` - 1 threads that share products with whoever leads one.

    Args:
        threads: of a product, with the one that leads it.
    """

    def __init__(self, threads: int) -> None:
        from sparsecomm.kernels.crew_loops import help_out, lead

        self._mail, self._lead, self._help = np.zeros(MAIL, np.int64), lead, help_out
        self._patience = _looks(help_out, _PATIENCE_S) if threads > 1 else 0
        self._threads = threads
        self.forget()

    def forget(self) -> None:
        """Begin with an empty mail, and helpers that have not been started: a forked child has none of its parent's."""
        self._mail[:], self._started = 0, False
        self._beds: list[SimpleQueue[None]] = [SimpleQueue() for _ in range(self._threads - 1)]

    def run(self, frame: Words, parts: int, x: npt.NDArray[Any], out: npt.NDArray[Any], keep: bool) -> None:
        """Run the parts of a frame on these blocks; whoever is awake takes some."""
        if self._beds and self._mail.item(AWAKE) < len(self._beds):
            self._rouse()
        self._lead(self._mail, frame, parts, bool(self._beds), x, out, keep)

    def _rouse(self) -> None:
        with _lock:
            if not self._started:
                self._started = True
                for bed in self._beds:
                    Thread(target=self._serve, args=(bed,), name="sparsecomm-product", daemon=True).start()
        for bed in self._beds:
            if bed.empty():
                bed.put(None)

    def _serve(self, bed: SimpleQueue[None]) -> None:
        while True:
            bed.get()
            self._help(self._mail, self._patience)


def crew_of(threads: int) -> Crew:
    """Return the crew of this process for so many threads."""
    with _lock:
        if threads not in _crews:
            _crews[threads] = Crew(threads)
        return _crews[threads]


def _looks(help_out: Callable[[npt.NDArray[np.int64], int], None], seconds: float) -> int:
    """Return how many looks into an empty mail take so long."""
    mail, least = np.zeros(MAIL, np.int64), float("inf")
    for _ in range(3):
        begin = time.perf_counter()
        help_out(mail, _LOOKS)
        least = min(least, time.perf_counter() - begin)
    return int(seconds / least * _LOOKS)


_crews: dict[int, Crew] = {}
_lock = Lock()


def _after_fork() -> None:
    global _lock
    _lock = Lock()
    for crew in _crews.values():
        crew.forget()


os.register_at_fork(after_in_child=_after_fork)
