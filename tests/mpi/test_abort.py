"""An error that nobody catches on one rank ends the job, wherever the other ranks wait."""

from __future__ import annotations

import re

import pytest

from tests.jobs import TIMED_OUT, run_job

RAISES = """
import numpy as np, threading, time
from sparsecomm.collectives.exchange import Exchange
from sparsecomm.collectives.run import Run
from sparsecomm.collectives.transport.mpi import MpiTransport
from tests.reference_plans import hub_plan, random_case

def fail(*_):
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
    "how",
    [
        "exchange.start(x); fail()",
        "Run.advance = fail",
        "threading.Thread(target=fail).start(); time.sleep(1000)",
    ],
    ids=["between start and wait", "inside a run", "in another thread"],
)
def test_uncaught_error_ends_the_job(how: str, mpi: str) -> None:
    job = run_job(4, ["python", "-c", RAISES.replace("HOW", how)], mpi=mpi, timeout=200)
    assert job.rc not in (0, TIMED_OUT), job
    assert "sparsecomm: at fault: rank 2 on host" in job.stderr, job
    assert re.search(r"Traceback.*in fail\n.*RuntimeError: the reason", job.stderr, re.DOTALL), job


FAILS_LATE = """
import numpy as np
from sparsecomm.collectives.exchange import Exchange
from sparsecomm.collectives.transport.mpi import MpiTransport
from tests.as_one_bodies import FIRST, AsOne
from tests.reference_plans import direct_plan, random_case

with MpiTransport() as transport:
    plan, wrapped = direct_plan(random_case(3, seed=1)).rank(transport.rank), AsOne(transport)
    with Exchange(plan, wrapped, 4) as exchange:
        x = np.zeros((plan.num_own, 4), dtype=np.float32)
        for _ in range(FIRST + 2):
            exchange.forward(x)
        assert wrapped.joined
        if transport.rank == 2:
            raise RuntimeError("the reason")
        while True:
            exchange.forward(x)
"""


def test_an_error_ends_a_job_that_waits_in_one_call() -> None:
    job = run_job(3, ["python", "-c", FAILS_LATE], mpi="openmpi", timeout=60)
    assert job.rc not in (0, TIMED_OUT), job
    assert "sparsecomm: at fault: rank 2 on host" in job.stderr, job
    assert "RuntimeError: the reason" in job.stderr, job


LOSES = """
from sparsecomm.apps.spmm import SpmmOptions, run_spmm
from sparsecomm.collectives.transport.mpi import MpiTransport
from sparsecomm.topology import Topology
from tests.transport_wrappers import Lossy

with MpiTransport() as transport:
    armed = []
    lossy = Lossy(transport, 2, 0, "HOW", armed)
    options = SpmmOptions("rmat:7:6", width=3, strategy="direct", check=True)
    arm = lambda step: step.startswith("multiplying") and armed.append(True)
    run_spmm(options, Topology.parse("nodes:2,1"), lossy, arm)
"""


@pytest.mark.parametrize(("how", "mpi"), [("empty", "mpich"), ("short", "openmpi")])
def test_a_spoilt_message_ends_the_job(how: str, mpi: str) -> None:
    job = run_job(3, ["python", "-c", LOSES.replace("HOW", how)], mpi=mpi, timeout=200)
    assert job.rc not in (0, TIMED_OUT), job
    assert re.search(r"ExchangeError: rank 0, stage 0: \d+ bytes came from rank 2, but the plan says", job.stderr), job


def test_foreign_launcher_is_refused() -> None:
    code = "from sparsecomm.collectives.transport.mpi import MpiTransport; MpiTransport()"
    job = run_job(1, ["python", "-c", code], env={"OMPI_COMM_WORLD_SIZE": "3"}, timeout=200)
    assert job.rc not in (0, TIMED_OUT), job
    assert "LaunchError: mpirun of Open MPI started 3 processes" in job.stderr, job
