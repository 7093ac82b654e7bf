"""What takes a communicator works on a part of the world while the other part, of another size, does something else."""

from __future__ import annotations

from collections.abc import Iterator

from mpi4py import MPI

import numpy as np
import pytest

from sparsecomm.apps.matrix import DistMatrix
from sparsecomm.apps.solvers import cg
from sparsecomm.collectives.exchange import Exchange
from sparsecomm.collectives.transport.open import detect_topology, open_transport
from tests.exchange_cases import blocks, same_bits
from tests.matrix_cases import STRATEGIES, cases, whole_numbers
from tests.reference_plans import hub_plan, random_case
from tests.solver_bodies import laplacians


@pytest.fixture
def part(comm: MPI.Intracomm) -> Iterator[MPI.Intracomm]:
    """A third of the ranks, or the rest; ranks count backwards in it."""
    part = comm.Split(comm.rank >= (comm.size + 1) // 3, -comm.rank)
    yield part
    part.Free()


@pytest.mark.mpi(min_size=2)
def test_transport(part: MPI.Intracomm) -> None:
    transport = open_transport(part)
    assert (transport.rank, transport.num_ranks) == (part.rank, part.size)
    assert detect_topology(transport).num_ranks == part.size
    found = transport.collect(np.array([MPI.COMM_WORLD.rank]))
    np.testing.assert_array_equal(found, part.allgather(MPI.COMM_WORLD.rank))
    transport.close()


@pytest.mark.mpi(min_size=2)
def test_different_work_at_the_same_time(comm: MPI.Intracomm, part: MPI.Intracomm) -> None:
    work = [multiply, exchange, solve, multiply]
    for act in work if comm.rank < (comm.size + 1) // 3 else reversed(work):
        act(part)


def multiply(part: MPI.Intracomm) -> None:
    for case in cases(part.size)[:2]:
        x, y = (whole_numbers((size, 3), np.float64, 20) for size in case.matrix.shape[::-1])
        for strategy in STRATEGIES:
            rows = case.rows(part.rank)
            with DistMatrix.from_rows(rows, case.layouts, case.topology, part, strategy=strategy) as a:
                found, turned = a @ case.mine(x, "cols", part.rank), a.T @ case.mine(y, "rows", part.rank)
            np.testing.assert_array_equal(found, case.mine(case.matrix @ x, "rows", part.rank))
            np.testing.assert_array_equal(turned, case.mine(case.matrix.T @ y, "cols", part.rank))


def exchange(part: MPI.Intracomm) -> None:
    transport = open_transport(part)
    for seed in range(3):
        plan = hub_plan(random_case(part.size, seed))
        xs, mine = blocks(plan.offsets, 3, np.float32, seed), plan.rank(part.rank)
        with Exchange(mine, transport, 3) as moving:
            assert same_bits(moving.forward(xs[part.rank]), np.concatenate(xs)[mine.ghost_rows])
            moving.verify()
    transport.close()


def solve(part: MPI.Intracomm) -> None:
    transport = open_transport(part)
    case = next(laplacians(transport))
    b = case.mine(np.arange(80.0), "rows", part.rank)
    with DistMatrix.from_rows(case.rows(part.rank), case.layouts, case.topology, part) as a:
        x, info = cg(a, b, rtol=1e-10)
        assert info == 0
        np.testing.assert_allclose(a @ x, b, atol=1e-6)
    transport.close()
