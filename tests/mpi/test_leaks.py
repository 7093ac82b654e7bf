"""Opening and closing a thousand times leaves memory, files, communicators and shared memory as they were."""

from __future__ import annotations

import pytest

from tests.jobs import run_job

# MPICH has some 2,000 communicators: a cycle that kept one of its three would not come to the end.
CYCLES = """
import os, resource
import numpy as np
from sparsecomm.collectives.exchange import Exchange
from sparsecomm.collectives.transport.mpi import MpiTransport
from tests.jobs import segments_of
from tests.reference_plans import hub_plan, random_case

def state():
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return len(os.listdir("/proc/self/fd")), len(segments_of(os.getpid())), rss

def cycle():
    with MpiTransport() as transport, Exchange(plans[transport.rank], transport, 8) as exchange:
        exchange.forward(np.ones((exchange.plan.num_own, 8), np.float32))
        exchange.reverse(np.ones((exchange.plan.num_ghost, 8), np.float32))

plan = hub_plan(random_case(2, seed=1))
plans = [plan.rank(rank) for rank in range(2)]
for _ in range(50):
    cycle()
before = state()
for _ in range(1000):
    cycle()
after = state()
assert after[:2] == before[:2], (before, after)
assert after[2] - before[2] < 4096, (before, after)  # KiB
"""


@pytest.mark.parametrize("mpi", ["mpich", pytest.param("openmpi", marks=pytest.mark.campaign)])
def test_a_thousand_cycles(mpi: str) -> None:
    job = run_job(2, ["python", "-c", CYCLES], mpi=mpi, timeout=240)
    assert job.rc == 0, job
