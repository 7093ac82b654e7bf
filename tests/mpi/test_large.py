"""A message of more than 2 GiB over both MPIs: Open MPI refuses counts above 2**31 - 1, so it goes in pieces."""

from __future__ import annotations

import psutil
import pytest

from tests.jobs import run_job

PROGRAM = """
from sparsecomm.collectives.transport.mpi import MpiTransport
from tests.large_bodies import check_message_beyond_2_gib
with MpiTransport() as transport:
    check_message_beyond_2_gib(transport)
    print("done", transport.rank)
"""


@pytest.mark.parametrize("mpi", [pytest.param("mpich", marks=pytest.mark.campaign), "openmpi"])
def test_message_beyond_2_gib(mpi: str) -> None:
    available = psutil.virtual_memory().available / 2**30
    if available < 12:
        pytest.skip(f"a message of 2 GiB needs 12 GiB of memory; {available:.1f} GiB are available")
    job = run_job(2, ["python", "-c", PROGRAM], mpi=mpi, timeout=200)
    assert job.rc == 0, job
    assert sorted(job.stdout.splitlines()) == ["done 0", "done 1"], job
