"""Ways in which MPI can repeat an exchange: persistent requests, a neighbourhood collective, messages in partitions.

    python benchmarks/primitives.py [--ranks 2,4] [--sizes 4,4096,65536,1048576] [--rounds 15] [--seconds 0.02]

Every rank sends a message to each other rank. What the figures mean: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from _cluster import in_jobs

_PARTS: Final = 8

Way = tuple[Callable[[], None], list[Any]]
"""A run, and the requests that it is made of."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--ranks", default="2,4", help="by commas (2,4)")
    parser.add_argument("--sizes", default="4,4096,65536,1048576", help="bytes of a message, by commas")
    parser.add_argument("--rounds", type=int, default=15, help="of each way, in turn (15)")
    parser.add_argument("--seconds", type=float, default=0.02, help="about so long takes a way in a round (0.02)")
    args = parser.parse_args()
    what = "microseconds of a run, median of the rounds; beside it the ratio to requests in a round [quartiles]"
    columns = f"{'ranks':>5s}{'bytes':>9s}{'requests':>12s}{'neighbours':>12s}{'':20s}{'partitioned':>12s}"
    return in_jobs(_in_job, args, what, columns)


def _in_job(args: argparse.Namespace) -> None:
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    for size in map(int, args.sizes.split(",")):
        peers = [rank for rank in range(comm.size) if rank != comm.rank]
        sent = np.full((len(peers), size), comm.rank, dtype=np.uint8)
        found = [np.zeros((len(peers), size), dtype=np.uint8) for _ in range(3)]
        made = [way(comm.Dup(), peers, sent, into) for way, into in zip(WAYS, found, strict=True)]
        runs = [run for run, _ in made]
        for run, into in zip(runs, found, strict=True):
            run()
            assert (into == np.array(peers, dtype=np.uint8)[:, None]).all()
        calls = comm.bcast(max(3, int(args.seconds / _timed(runs[0], 20, comm))))
        rounds = np.array([[_timed(run, calls, comm) for run in runs] for _ in range(args.rounds)])
        times = np.empty_like(rounds)
        comm.Allreduce(rounds, times, op=MPI.MAX)
        for request in [request for _, requests in made for request in requests]:
            request.Free()
        if comm.rank == 0:
            requests_us, *others_us = 1e6 * np.median(times, axis=0)
            ratios = [_spread(times[:, way] / times[:, 0]) for way in (1, 2)]
            cells = "".join(f"{us:>12.1f}{ratio:>20s}" for us, ratio in zip(others_us, ratios, strict=True))
            print(f"{comm.size:5d}{size:9d}{requests_us:12.1f}{cells}", flush=True)


def _requests(comm: Any, peers: list[int], sent: Any, found: Any) -> Way:
    from mpi4py import MPI

    recvs = [comm.Recv_init(into, peer) for peer, into in zip(peers, found, strict=True)]
    both = recvs + [comm.Send_init(rows, peer) for peer, rows in zip(peers, sent, strict=True)]

    def run() -> None:
        MPI.Prequest.Startall(both)
        while not MPI.Request.Testall(both):
            os.sched_yield()

    return run, both


def _neighbours(comm: Any, peers: list[int], sent: Any, found: Any) -> Way:
    from mpi4py import MPI

    graph = comm.Create_dist_graph_adjacent(peers, peers)
    sizes = [sent.shape[1]] * len(peers)
    both = [graph.Neighbor_alltoallv_init([sent, sizes, MPI.BYTE], [found, sizes, MPI.BYTE])]

    def run() -> None:
        both[0].Start()
        while not both[0].Test():
            os.sched_yield()

    return run, both


def _parts(comm: Any, peers: list[int], sent: Any, found: Any) -> Way:
    """Return a run whose messages may leave in parts, which here are ready all at once."""
    parts = _PARTS if sent.shape[1] % _PARTS == 0 else 1
    recvs = [comm.Precv_init(into, parts, peer, 0) for peer, into in zip(peers, found, strict=True)]
    sends = [comm.Psend_init(rows, parts, peer, 0) for peer, rows in zip(peers, sent, strict=True)]
    both = recvs + sends

    def run() -> None:
        left = both
        for request in left:
            request.Start()
        for request in sends:
            request.Pready_range(0, parts - 1)
        while left := [request for request in left if not request.Test()]:  # MPICH 5.0.2 has no Testall of these
            os.sched_yield()

    return run, both


def _timed(act: Callable[[], object], calls: int, comm: Any) -> float:
    comm.Barrier()
    begin = time.perf_counter()
    for _ in range(calls):
        act()
    return (time.perf_counter() - begin) / calls


def _spread(values: Any) -> str:
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle:.2f} [{low:.2f} {high:.2f}]"


WAYS: Final = (_requests, _neighbours, _parts)

if __name__ == "__main__":
    sys.exit(main())
