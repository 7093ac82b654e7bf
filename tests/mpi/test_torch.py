"""PyTorch over exchanges in MPI jobs; one job for all bodies, because every rank takes seconds to load PyTorch."""

from __future__ import annotations

import pytest

from tests.jobs import run_job

pytest.importorskip("torch", reason="PyTorch is not installed")


@pytest.mark.parametrize("ranks", [2, 4])
def test_bodies(ranks: int) -> None:
    job = run_job(ranks, ["python", "-m", "tests.torch_job"], timeout=280)
    assert job.rc == 0, job
    assert "check_refused" in job.stdout, job
    assert ("check_compiled" in job.stdout) == (ranks == 2), job
