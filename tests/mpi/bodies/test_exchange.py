"""The bodies over a real communicator."""

from __future__ import annotations

from collections.abc import Callable

from mpi4py import MPI

import pytest

from sparsecomm.collectives.transport import mpi_collective
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.collectives.transport.mpi import MpiTransport, topology_of
from sparsecomm.errors import InputError
from tests import as_one_bodies, exchange_bodies, run_bodies


@pytest.mark.mpi
@pytest.mark.parametrize("body", exchange_bodies.BODIES, ids=lambda body: body.__name__)
def test_body(body: Callable[[Transport], None], comm: MPI.Intracomm) -> None:
    with MpiTransport(comm) as transport:
        body(transport)


@pytest.mark.mpi(min_size=4)
@pytest.mark.parametrize("body", exchange_bodies.BODIES, ids=lambda body: body.__name__)
def test_body_in_shared_memory(body: Callable[[Transport], None], comm: MPI.Intracomm) -> None:
    if comm.size == 4:
        with MpiTransport(comm, num_shared=1) as transport:
            body(transport)


@pytest.mark.mpi
@pytest.mark.parametrize("body", as_one_bodies.BODIES, ids=lambda body: body.__name__)
def test_body_of_one_call(body: Callable[[Transport], None], comm: MPI.Intracomm) -> None:
    with MpiTransport(comm) as transport:
        body(transport)


@pytest.mark.mpi
def test_one_call_over_buffers_that_lie_far_apart(comm: MPI.Intracomm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mpi_collective, "_SPAN_BYTES", 0)
    if comm.size <= 4:
        with MpiTransport(comm) as transport:
            as_one_bodies.check_as_one(transport)


@pytest.mark.mpi
def test_splitting(comm: MPI.Intracomm) -> None:
    with MpiTransport(comm, max_bytes=64) as transport:
        run_bodies.check_splitting(transport)


@pytest.mark.mpi
def test_part_of_the_world(comm: MPI.Intracomm) -> None:
    """Ranks are those of the communicator, not those of the world."""
    half = comm.Split(comm.rank % 2, -comm.rank)
    with MpiTransport(half) as transport:
        exchange_bodies.check_forward(transport)
    half.Free()


@pytest.mark.mpi
def test_many_transports_in_turn(comm: MPI.Intracomm) -> None:
    """Every communicator is freed: MPICH has 2048 of them."""
    for _ in range(2200):
        MpiTransport(comm).close()


@pytest.mark.mpi
def test_topology_of_one_machine(comm: MPI.Intracomm) -> None:
    topology = topology_of(comm)
    assert topology.num_ranks == comm.size
    assert topology.num_nodes == 1


@pytest.mark.mpi
@pytest.mark.parametrize("max_bytes", [0, 1 << 30])
def test_piece_size_is_checked(max_bytes: int, comm: MPI.Intracomm) -> None:
    with pytest.raises(InputError, match="max_bytes"):
        MpiTransport(comm, max_bytes=max_bytes)
