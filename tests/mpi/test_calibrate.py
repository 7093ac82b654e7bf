"""Calibration in a job of processes, and predictions with it; plans found again by the processes of another job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.jobs import run_job


@pytest.mark.parametrize("mpi", ["mpich"])
def test_calibrate_then_multiply_twice(mpi: str, tmp_path: Path) -> None:
    file, env = tmp_path / "here.json", {"SPARSECOMM_CACHE": str(tmp_path / "plans")}
    job = run_job(3, ["sparsecomm", "calibrate", "-t", "nodes:2,1", "-o", str(file), "--json"], mpi=mpi)
    assert job.rc == 0, job
    assert json.loads(job.stdout)["levels"].keys() == {"node", "network"}
    words = ["sparsecomm", "spmm", "rmat:8", "-t", "nodes:2,1", "--calibration", str(file), "--check", "--json"]
    reports = []
    for _ in range(2):
        job = run_job(3, words, mpi=mpi, env=env)
        assert job.rc == 0, job
        reports.append(json.loads(job.stdout))
    first, second = reports
    assert [report["cache"] for report in reports] == [{"hits": 0, "misses": 2}, {"hits": 2, "misses": 0}]
    assert first["strategies"] == second["strategies"]
    assert first["calibration"] == str(file)
    assert second["verified"]
