"""Progress of long work on standard error: a live line on a terminal, else a line every few seconds."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import TextIO

EVERY_S = 5.0
QUIET_S = 2.0


class Progress:
    """Says which step is under way, once the work has taken a moment.

    Args:
        enabled: whether anything is shown; only rank 0 of a job shows.
        stream: where to; standard error by default.
    """

    def __init__(self, enabled: bool = True, stream: TextIO | None = None) -> None:
        self._enabled, self._stream = enabled, stream or sys.stderr
        self._begin = time.monotonic()
        self._step, self._step_begin = "", self._begin
        self._live = self._stream.isatty()
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._shown = 0
        self._thread = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Progress:
        if self._enabled:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        if self._enabled:
            self._thread.join()
            with self._lock:
                self._clear()

    def __call__(self, step: str) -> None:
        """Begin a step."""
        with self._lock:
            self._step, self._step_begin = step, time.monotonic()

    def _tick(self) -> None:
        wait = 0.2 if self._live else EVERY_S
        if self._done.wait(QUIET_S):
            return
        while True:
            with self._lock:
                self._show()
            if self._done.wait(wait):
                return

    def _show(self) -> None:
        if not self._step:
            return
        seconds = time.monotonic() - self._step_begin
        text = f"{self._step} ({seconds:.0f} s)" if seconds >= 1 else self._step
        if self._live:
            self._clear()
            self._stream.write(text)
            self._shown = len(text)
        else:
            self._stream.write(f"sparsecomm: {text}\n")
        self._stream.flush()

    def _clear(self) -> None:
        if self._shown:
            self._stream.write("\r" + " " * self._shown + "\r")
            self._stream.flush()
            self._shown = 0
