"""Solvers with one thread per rank, and the example as a job."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sparsecomm.collectives.transport.base import Transport
from sparsecomm.collectives.transport.local import run_local
from tests import solver_bodies
from tests.jobs import run_job


@pytest.mark.parametrize("num_ranks", [1, 4])
@pytest.mark.parametrize("body", solver_bodies.BODIES, ids=lambda body: body.__name__)
def test_body(body: Callable[[Transport], None], num_ranks: int) -> None:
    run_local(num_ranks, body)


@pytest.mark.parametrize(("mpi", "ranks"), [("mpich", 1), ("mpich", 4), ("openmpi", 4)])
def test_example(mpi: str, ranks: int) -> None:
    job = run_job(ranks, ["python", "docs/examples/cg.py"], mpi=mpi)
    assert job.rc == 0, job
    assert f"cg on {ranks} ranks: residual" in job.stdout, job
    assert "largest eigenvalue by eigsh: 7.968" in job.stdout, job
