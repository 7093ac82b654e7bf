"""Matrices and star forests of PETSc itself, where petsc4py is installed for the MPI of these jobs."""

from __future__ import annotations

import pytest

from tests.jobs import run_job

pytest.importorskip("petsc4py", reason="petsc4py is not installed")


@pytest.mark.parametrize("ranks", [1, 4])
def test_bodies(ranks: int) -> None:
    job = run_job(ranks, ["python", "-m", "tests.petsc_job"], timeout=200)
    assert job.rc == 0, job
    assert "check_forest" in job.stdout, job
