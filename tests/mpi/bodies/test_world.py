"""The job is one job: all its ranks can talk to each other."""

from __future__ import annotations

from mpi4py import MPI

import numpy as np


def test_sum_over_ranks(comm: MPI.Intracomm) -> None:
    total = np.empty(1, dtype=np.int64)
    comm.Allreduce(np.array([comm.rank + 1]), total, op=MPI.SUM)
    assert total[0] == comm.size * (comm.size + 1) // 2
