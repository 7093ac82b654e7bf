"""Which recorder is the active one of a thread, and what stands for it where there is none."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Final, TypeVar

from sparsecomm.profile.recorder import Recorder

T = TypeVar("T")


class _Off:
    """Stands for a recorder where nothing is recorded."""

    def product(self, name: str) -> _Off:
        return self

    def chunks(self, name: str, steps: Iterator[T]) -> Iterator[T]:
        return steps

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        pass


_OFF: Final = _Off()


class _Here(threading.local):
    recorder: Recorder | None = None  # of the class: asking for an attribute that is not there costs ten times as much


here: Final = _Here()  # of this thread, which is a rank


def active() -> Recorder | None:
    """Return the recorder of this thread, which is a rank, if it has one."""
    return here.recorder


def products() -> Recorder | _Off:
    """Return what takes the time of products, whether anything is recorded or not."""
    return active() or _OFF


def activate(recorder: Recorder | None) -> Recorder | None:
    """Make `recorder`, or none, the active one of this thread, and return the one that was."""
    before = active()
    here.recorder = recorder
    return before
