"""Every test body under real MPI jobs, and the harness that runs them."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from tests.jobs import TIMED_OUT, run_job

PYTEST = ["python", "-m", "pytest", "--with-mpi", "--color=no", "-p", "no:cacheprovider"]
# A rank that hangs inside MPI never returns to Python: only a thread can print its stack and end it.
DEADLINE = ["--timeout-method=thread", "--timeout=100"]
VENDOR = {"mpich": "MPICH", "openmpi": "Open MPI"}
JOBS = [("mpich", ranks) for ranks in (1, 2, 4, 7)] + [("openmpi", ranks) for ranks in (2, 3)]
# What runs on more ranks than cores, which takes long; whole products do so in the sample of the spmm campaign.
SHORT = ("dispatch", "exchange", "planning", "profile", "world")


@pytest.mark.parametrize(("mpi", "ranks"), JOBS)
def test_bodies(mpi: str, ranks: int) -> None:
    bodies = [f"tests/mpi/bodies/test_{name}.py" for name in SHORT] if ranks > 4 else ["tests/mpi/bodies"]
    job = run_job(ranks, [*PYTEST, *DEADLINE, *bodies], mpi=mpi, timeout=280)
    assert job.rc == 0, job
    assert f"MPI: {ranks} ranks of {VENDOR[mpi]}" in job.stdout, job
    assert " passed" in job.stdout, job
    assert "SKIPPED" not in job.stdout, job


@pytest.mark.parametrize("mpi", VENDOR)
def test_failure_on_one_rank_ends_the_job(mpi: str, tmp_path: Path) -> None:
    body = _body(tmp_path, "assert comm.rank != 1, 'only here'\n    comm.Barrier()")
    job = run_job(3, [*PYTEST, "-p", "tests.under_mpi", body], mpi=mpi, timeout=200)
    assert job.rc not in (0, TIMED_OUT), job
    assert "rank 1: " in job.stderr, job
    assert "only here" in job.stderr, job


@pytest.mark.parametrize("mpi", VENDOR)
def test_hang_ends_with_a_stack(mpi: str, tmp_path: Path) -> None:
    body = _body(tmp_path, "comm.rank or comm.recv(source=comm.size - 1)")
    soon = ["--timeout-method=thread", "--timeout=2", "-o", "timeout_func_only=true"]
    argv = [*PYTEST, *soon, "-p", "tests.under_mpi", body]
    job = run_job(2, argv, mpi=mpi, timeout=200)
    assert job.rc not in (0, TIMED_OUT), job
    assert "comm.recv" in job.stdout + job.stderr, job


@pytest.mark.parametrize("mpi", VENDOR)
def test_deadline_leaves_no_process(mpi: str, tmp_path: Path) -> None:
    mark = str(tmp_path)
    job = run_job(2, ["python", "-c", "import time; time.sleep(1000)", mark], mpi=mpi, timeout=3)
    assert job.rc == TIMED_OUT, job
    assert not [process for process in psutil.process_iter() if mark in _command(process)]


def _body(folder: Path, statements: str) -> str:
    file = folder / "test_body.py"
    file.write_text(f"def test_body(comm):\n    {statements}\n")
    return str(file)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
