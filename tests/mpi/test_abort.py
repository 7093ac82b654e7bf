"""An error that nobody catches on one rank ends the job, wherever the other ranks wait."""

from __future__ import annotations

import pytest

from tests.jobs import TIMED_OUT, run_job

RAISES = """
import numpy as np, threading, time
from sparsecomm.collectives.exchange import Exchange
from sparsecomm.collectives.transport.mpi import MpiTransport
from tests.reference_plans import hub_plan, random_case

def fail():
    raise RuntimeError("the reason")

with MpiTransport() as transport:
    plan = hub_plan(random_case(transport.num_ranks, seed=1)).rank(transport.rank)
    with Exchange(plan, transport, 4) as exchange:
        x = np.zeros((plan.num_own, 4), dtype=np.float32)
        exchange.forward(x)
        if transport.rank == 2:
            HOW
        exchange.forward(x)
        exchange.forward(x)
    transport.barrier()
"""


@pytest.mark.parametrize("mpi", ["mpich", "openmpi"])
@pytest.mark.parametrize(
    "how", ["fail()", "exchange.start(x); fail()", "threading.Thread(target=fail).start(); time.sleep(60)"]
)
def test_uncaught_error_ends_the_job(how: str, mpi: str) -> None:
    job = run_job(4, ["python", "-c", RAISES.replace("HOW", how)], mpi=mpi, timeout=60)
    assert job.rc not in (0, TIMED_OUT), job
    assert "sparsecomm: rank 2 on host" in job.stderr, job
    assert "RuntimeError: the reason" in job.stderr, job
    assert job.seconds < (5 if mpi == "mpich" else 15), job


def test_foreign_launcher_is_refused() -> None:
    code = "from sparsecomm.collectives.transport.mpi import MpiTransport; MpiTransport()"
    job = run_job(1, ["python", "-c", code], env={"OMPI_COMM_WORLD_SIZE": "3"}, timeout=60)
    assert job.rc not in (0, TIMED_OUT), job
    assert "LaunchError: mpirun of Open MPI started 3 processes" in job.stderr, job
