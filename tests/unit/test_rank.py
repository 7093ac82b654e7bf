"""What is said of a rank that a signal ended: it is at fault only where nobody ended the whole job."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("script", "verdict"),
    [
        ("kill -TERM $$", "rank 0 on host "),
        ("supervisor=$PPID; (sleep 0.1; kill -TERM $supervisor) & kill -TERM $$", ""),
    ],
    ids=["the rank alone", "the rank, then who watches it"],
)
def test_terminated(script: str, verdict: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sparsecomm.launch.rank", str(tmp_path), "sh", "-c", script]
    job = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert job.returncode == -15
    assert (tmp_path / "0").read_text() == "143"
    assert job.stderr == ""
    fault = tmp_path / "0.fault"
    assert fault.exists() == bool(verdict)
    if verdict:
        assert fault.read_text().startswith(verdict)
