"""Signals that ask to stop, kept until it is safe to act on them."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Final

from sparsecomm.errors import LaunchError

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupt:
    """While entered, SIGINT, SIGTERM and SIGHUP are only noted; `check` raises if one came."""

    def __init__(self) -> None:
        self._came: signal.Signals | None = None
        self._old: dict[signal.Signals, object] = {}

    def __enter__(self) -> Interrupt:
        self._old = {one: signal.signal(one, self._note) for one in _SIGNALS}
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        for one, handler in self._old.items():
            signal.signal(one, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._came = signal.Signals(number)

    def check(self) -> None:
        """Raise if a signal came.

        Raises:
            LaunchError: with its name.
        """
        if self._came is not None:
            raise LaunchError(f"interrupted by {self._came.name}")
