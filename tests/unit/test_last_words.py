"""Who ends a job waits until its last words were read, but not for ever."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from sparsecomm.collectives.transport import last_words
from sparsecomm.collectives.transport.last_words import wait_for_last_words


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """A pipe in the place of standard error."""
    to_read, to_write = os.pipe()
    monkeypatch.setattr(last_words, "_STDERR", to_write)
    yield to_read, to_write
    os.close(to_read)
    os.close(to_write)


def naps_until_read(monkeypatch: pytest.MonkeyPatch, pipe: int, after: int) -> list[float]:
    """Return how long was slept each time; the pipe is read in nap number `after`."""
    naps: list[float] = []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == after:
            os.read(pipe, 100)

    monkeypatch.setattr(last_words, "time", SimpleNamespace(monotonic=lambda: sum(naps), sleep=sleep))
    wait_for_last_words()
    return naps


def test_until_they_were_read(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    os.write(pipe[1], b"at fault: rank 2")
    assert naps_until_read(monkeypatch, pipe[0], after=4) == [0.01] * 4 + [0.3]


def test_nothing_was_said(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    assert naps_until_read(monkeypatch, pipe[0], after=-1) == [0.3]


def test_nobody_reads(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    os.write(pipe[1], b"at fault: rank 2")
    assert sum(naps_until_read(monkeypatch, pipe[0], after=-1)) == pytest.approx(5.3, abs=0.02)


def test_a_file_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str]) -> None:
    with open(os.path.join(tmp_path, "err"), "w+b") as file:
        file.write(b"at fault: rank 2")
        file.flush()
        file.seek(0)
        monkeypatch.setattr(last_words, "_STDERR", file.fileno())
        assert naps_until_read(monkeypatch, -1, after=-1) == [0.3]
