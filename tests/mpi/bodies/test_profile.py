"""Profiles over a real communicator: clocks of processes, and the traffic of programs that use mpi4py themselves."""

from __future__ import annotations

import pickle
from pathlib import Path

from mpi4py import MPI

import numpy as np
import pytest

from sparsecomm.apps.report.case import load_case
from sparsecomm.apps.report.summary import summarise
from sparsecomm.collectives.profile import Profile
from sparsecomm.collectives.transport.clocks import clock_offset_ns
from sparsecomm.collectives.transport.mpi import MpiTransport
from sparsecomm.profile_store import load_header, load_ranks
from sparsecomm.topology import Topology


@pytest.mark.mpi
def test_clocks_of_one_machine_agree(comm: MPI.Intracomm) -> None:
    with MpiTransport(comm) as transport:
        assert abs(clock_offset_ns(transport)) < 10**9


@pytest.mark.mpi
def test_every_rank_writes_a_file(comm: MPI.Intracomm, tmp_path: Path) -> None:
    path = comm.bcast(tmp_path / "run")
    with Profile.record(path, comm) as profile, profile.recorder.product("own"):
        pass
    comm.Barrier()
    ranks, lost = load_ranks(path, load_header(path))
    assert [rank.rank for rank in ranks] == list(range(comm.size))
    assert not lost
    comm.Barrier()


@pytest.mark.mpi
def test_traffic_of_a_foreign_program(comm: MPI.Intracomm) -> None:
    counted, size, rank = Profile.attach(comm), comm.size, comm.rank
    right, left = (rank + 1) % size, (rank - 1) % size
    wanted, messages = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)

    counted.Sendrecv(np.zeros(5), right, 0, np.empty(5), left, 0)
    wanted[right] += 40
    messages[right] += 1
    request = counted.Isend([np.zeros(9, dtype=np.float32), 4, MPI.FLOAT], right)
    comm.Recv(np.empty(4, dtype=np.float32), left)
    request.Wait()
    wanted[right] += 16
    messages[right] += 1
    counts = np.arange(size) + 1
    received = np.full(size, rank + 1)
    ends = [np.cumsum(one) - one for one in (counts, received)]
    counted.Alltoallv(
        [np.zeros(counts.sum()), (counts, ends[0]), MPI.DOUBLE],
        [np.empty(received.sum()), (received, ends[1]), MPI.DOUBLE],
    )
    wanted += counts * 8
    messages += 1
    counted.Allgather(np.zeros(3), np.empty(3 * size))
    wanted += 24
    messages += 1
    counted.bcast("text", root=0)
    if rank == 0:
        wanted += len(pickle.dumps("text"))
        messages += 1
    persistent = counted.Send_init(np.zeros(2), right)
    for _ in range(3):
        persistent.Start()
        comm.Recv(np.empty(2), left)
        persistent.Wait()
    wanted[right] += 48
    messages[right] += 3
    assert counted.allreduce(1) == size  # not counted, but done

    wanted[rank] = messages[rank] = 0
    traffic = counted.traffic()
    assert traffic.peer_bytes.tolist() == wanted.tolist()
    assert traffic.peer_messages.tolist() == messages.tolist()
    assert sum(traffic.level_bytes.values()) == wanted.sum()


@pytest.mark.mpi(min_size=2)
def test_a_foreign_program_is_reported(comm: MPI.Intracomm, tmp_path: Path) -> None:
    path = comm.bcast(tmp_path / "before")
    counted = Profile.attach(comm)
    counted.Allgather(np.zeros(10), np.empty(10 * comm.size))
    counted.save(path)
    comm.Barrier()
    case = load_case(path)
    assert case.traffic.num_bytes.sum() == 80 * comm.size * (comm.size - 1)
    assert summarise(case)["levels"]["node"]["messages"] == comm.size * (comm.size - 1)
    comm.Barrier()


@pytest.mark.mpi(min_size=3)
def test_traffic_by_level(comm: MPI.Intracomm) -> None:
    node = np.arange(comm.size) // 2
    counted = Profile.attach(comm, Topology.from_nodes(node))
    counted.Allgather(np.zeros(1), np.empty(comm.size))
    mates = int((node == node[comm.rank]).sum()) - 1
    assert counted.traffic().level_messages == {"node": mates, "network": comm.size - 1 - mates}
