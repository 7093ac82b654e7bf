"""`sparsecomm cluster run`: every rank on its node, over the limited link, and the exit code of the command."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import psutil
import pytest

from tests.cluster.conftest import Clusters
from tests.jobs import run

# Where each rank is, and the seconds that 4 MB took to the next rank of the node and to one of the next node.
BODY = """
import socket, time
from mpi4py import MPI
comm, data = MPI.COMM_WORLD, bytearray(4_000_000)
seconds = []
for distance in (1, 2):
    comm.Barrier()
    began = time.perf_counter()
    if comm.rank == 0:
        comm.Send(data, distance)
        comm.Recv(bytearray(1), distance)
    elif comm.rank == distance:
        comm.Recv(data, 0)
        comm.Send(bytearray(1), 0)
    seconds.append(time.perf_counter() - began)
node = comm.Split_type(MPI.COMM_TYPE_SHARED)
places = comm.gather((socket.gethostname(), node.size))
if comm.rank == 0:
    print(places, seconds[1], sep="|")
"""
BURST = 500_000


def test_ranks_are_on_their_nodes_and_links_are_limited(cluster: Clusters, env: str) -> None:
    job = cluster.run(["python", "-c", BODY], "--env", env)
    assert job.rc == 0, job
    places, seconds = job.stdout.strip().split("|")
    assert eval(places) == [(f"node{rank // 2}", 2) for rank in range(8)]
    assert float(seconds) > (4_000_000 - 2 * BURST) * 8 / 1e9  # the burst at both ends of the link passes at once


def test_the_code_of_the_rank_that_failed_is_returned(cluster: Clusters, env: str) -> None:
    rank = "${OMPI_COMM_WORLD_RANK:-$PMI_RANK}"
    job = cluster.run(["sh", "-c", f"[ {rank} != 5 ] || exit 7"], "--env", env)
    assert job.rc == 7, job


def test_a_killed_rank_is_not_success(cluster: Clusters, env: str) -> None:
    rank = "${OMPI_COMM_WORLD_RANK:-$PMI_RANK}"
    job = cluster.run(["sh", "-c", f"[ {rank} != 5 ] || kill -9 $$"], "--env", env)
    assert job.rc == 137, job


def test_a_deadline_leaves_no_process(cluster: Clusters, env: str) -> None:
    seconds = f"1{os.getpid()}.5"
    job = cluster.run(["sleep", seconds], "--env", env, timeout=2)
    assert job.rc == 86, job
    assert "not done after 2 s" in job.stderr
    assert not processes(seconds)


def test_an_interrupt_leaves_no_process(cluster: Clusters) -> None:
    seconds = f"2{os.getpid()}.5"
    command = cluster.command("run", "--", "sleep", seconds)
    process = subprocess.Popen(
        command, env={**os.environ, **cluster.env}, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        until = time.monotonic() + 100
        while len(processes(seconds)) < 8 and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=200)[1]
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 1, said
    assert "interrupted by SIGINT" in said
    assert not processes(seconds)


def processes(word: str) -> list[psutil.Process]:
    """Return the processes `sleep WORD`."""
    return [one for one in psutil.process_iter(["cmdline"]) if one.info["cmdline"] == ["sleep", word]]


def test_on_one_node_it_runs_once(cluster: Clusters) -> None:
    job = cluster.run(["sh", "-c", "hostname; exit 4"], "--on", "node2")
    assert (job.rc, job.stdout) == (4, "node2\n"), job
    wrong = cluster.run(["true"], "--on", "node9")
    assert wrong.rc == 2, wrong
    assert "its nodes are head, node0, node1, node2, node3" in wrong.stderr


def test_the_agent_enters_a_node_as_ssh_would(cluster: Clusters) -> None:
    job = run([str(cluster.folder / "agent"), "-x", "node1", "echo", "$(hostname)", "'a  b'"], timeout=200)
    assert (job.rc, job.stdout) == (0, "node1 a  b\n"), job


def test_another_mpi_is_refused(cluster: Clusters) -> None:
    job = cluster.run(["true"], "--mpi", "openmpi")
    assert job.rc == 2, job
    assert "has mpich, not openmpi" in job.stderr


@pytest.mark.campaign
@pytest.mark.parametrize("strategy", ["direct", "hierarchical"])
def test_spmm(cluster: Clusters, env: str, strategy: str, capsys: pytest.CaptureFixture[str]) -> None:
    job = cluster.run(["sparsecomm", "spmm", "rmat:16", "--check", "-s", strategy, "--repeat", "20"], "--env", env)
    assert job.rc == 0, job
    assert "detected: 8 ranks on 4 nodes, levels node < network" in job.stdout
    assert "verified against scipy" in job.stdout
    with capsys.disabled():
        print(f"\n{strategy}, {env}: " + next(line for line in job.stdout.splitlines() if line.startswith("A @ X")))
