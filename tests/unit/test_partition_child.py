"""The process that foreign libraries run in: what goes wrong there is one clear error here, and leaves no files."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sparsecomm.errors import SparseCommError
from sparsecomm.partition.child import Child, call_apart

BODIES = "tests.child_bodies"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Temporary files go here; none may be left."""
    files = tmp_path / "files"
    files.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(files))
    yield tmp_path
    assert list(files.iterdir()) == []


def test_arrays_go_and_come_back(folder: Path) -> None:
    arrays = {"whole": np.arange(5), "none": np.empty(0, np.float32), "table": np.ones((2, 3))}
    answer = call_apart(f"{BODIES}:double", arrays)
    assert {name: array.tolist() for name, array in answer.items()} == {
        "whole": [0, 2, 4, 6, 8],
        "none": [],
        "table": [[2, 2, 2], [2, 2, 2]],
    }


def test_killed(folder: Path) -> None:
    child = Child()

    def kill() -> None:
        while not (folder / "started").exists():
            time.sleep(0.01)
        os.kill(child.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    where = np.frombuffer(str(folder).encode(), dtype=np.uint8)
    with pytest.raises(SparseCommError, match="its process ended with status -9; try another method"):
        child.call(f"{BODIES}:sleep", {"where": where}, 500)
    killer.join()
    child.close()


@pytest.mark.parametrize(
    ("body", "says"),
    [("crash", "its process ended with status -6"), ("complain", "ValueError: the graph is empty")],
)
def test_failing(body: str, says: str, folder: Path) -> None:
    with pytest.raises(SparseCommError, match=says):
        call_apart(f"{BODIES}:{body}", {})


def test_too_late(folder: Path) -> None:
    where = np.frombuffer(str(folder).encode(), dtype=np.uint8)
    with pytest.raises(SparseCommError, match=r"no answer within 0\.5 s and was ended"):
        call_apart(f"{BODIES}:sleep", {"where": where}, timeout_s=0.5)


def test_too_large(folder: Path) -> None:
    with pytest.raises(SparseCommError, match="more than 1,000,000,000 bytes of memory"):
        call_apart(f"{BODIES}:swell", {}, memory_bytes=1_000_000_000)


def test_a_waiting_child_serves_again_until_it_dies(folder: Path) -> None:
    Child.start()
    with Child.borrow() as child:
        first = child
    with Child.borrow() as child:
        assert child is first
    with pytest.raises(SparseCommError):
        call_apart(f"{BODIES}:crash", {})
    assert call_apart(f"{BODIES}:double", {"one": np.ones(1)})["one"].tolist() == [2]
    Child.stop()
