"""What is said of a rank that a signal ended: it is at fault only where nobody ended the whole job."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# `rank FOLDER COMMAND`, with so much patience for the signal to come here as well.
PROGRAM = """
import sys
from pathlib import Path
from sparsecomm.launch import rank
rank._SAME_SIGNAL_S = float(sys.argv[1])
rank._end(rank.run_rank(Path(sys.argv[2]), sys.argv[3:]))
"""


@pytest.mark.parametrize(
    ("script", "patience_s", "verdict"),
    [
        ("kill -TERM $$", 0.3, "rank 0 on host "),
        ("supervisor=$PPID; (sleep 0.1; kill -TERM $supervisor) & kill -TERM $$", 200, ""),
    ],
    ids=["the rank alone", "the rank, then who watches it"],
)
def test_terminated(script: str, patience_s: float, verdict: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(patience_s), str(tmp_path), "sh", "-c", script]
    job = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert job.returncode == -15
    assert (tmp_path / "0").read_text() == "143"
    assert job.stderr == ""
    fault = tmp_path / "0.fault"
    assert fault.exists() == bool(verdict)
    if verdict:
        assert fault.read_text().startswith(verdict)
