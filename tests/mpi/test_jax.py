"""JAX over exchanges in MPI jobs; one job for all bodies, because every rank takes a second to load JAX."""

from __future__ import annotations

import pytest

from tests.jobs import run_job

pytest.importorskip("jax", reason="JAX is not installed")


@pytest.mark.campaign
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_bodies(ranks: int) -> None:
    job = run_job(ranks, ["python", "-m", "tests.jax_job"], timeout=200)
    assert job.rc == 0, job
    assert "check_batched_requests" in job.stdout, job
