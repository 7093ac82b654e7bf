"""What a call costs when there is hardly anything to move: an Exchange beside bare persistent requests of mpi4py.

    python benchmarks/overhead.py [--ranks 2,4] [--calls 200] [--rounds 15]

Every rank gets one row of each other rank, one number wide. What the figures mean: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from _cluster import in_jobs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--ranks", default="2,4", help="by commas (2,4)")
    parser.add_argument("--calls", type=int, default=200, help="in one round (200)")
    parser.add_argument("--rounds", type=int, default=15, help="of each, in turn (15)")
    args = parser.parse_args()
    what = (
        "microseconds a call, median of the rounds [quartiles]; a ratio is taken in a round\n"
        "one: lower quartile of single calls of rank 0"
    )
    columns = (
        f"{'ranks':>5s}{'bare':>24s}{'Exchange':>24s}{'shared':>24s}{'Exchange / bare':>22s}{'shared / bare':>22s}"
    )
    return in_jobs(_in_job, args, what, columns)


def _in_job(args: argparse.Namespace) -> None:
    from sparsecomm.collectives.copies import build_rank_plan
    from sparsecomm.collectives.direct import direct_copies
    from sparsecomm.collectives.exchange import Exchange
    from sparsecomm.collectives.transport.mpi import MpiTransport
    from sparsecomm.layout import Layout
    from sparsecomm.pattern import Pattern
    from sparsecomm.topology import Topology

    with MpiTransport() as transport:
        num_ranks, rank = transport.num_ranks, transport.rank
        layout = Layout.block(8 * num_ranks, num_ranks)
        others = 8 * np.delete(np.arange(num_ranks), rank)
        pattern = Pattern.of_requests(np.full(others.size, rank, np.int32), others, layout)
        plan = build_rank_plan(direct_copies(pattern, Topology.from_nodes(np.zeros(num_ranks))), transport)
        with (
            Exchange(plan, transport, 1) as exchange,
            transport.duplicate(1) as near,
            Exchange(plan, near, 1) as shared,
        ):
            bare, found = _bare(transport.comm, others.size)
            x = np.full((8, 1), rank, dtype=np.float32)
            acts = [lambda: bare(x), lambda: exchange.forward(x), lambda: shared.forward(x)]
            for act in acts:
                act()
            np.testing.assert_array_equal(found, exchange.forward(x)[:, 0])
            rounds = np.array([[_timed(act, args.calls, transport) for act in acts] for _ in range(args.rounds)])
            times = 1e6 * transport.reduce(rounds, "max").T
            singles = [_lower_quartile(act, args.calls * args.rounds, transport) for act in acts]
        if rank == 0:
            ratios = [times[1] / times[0], times[2] / times[0]]
            cells = [*(f"{_spread(one, 1):>24s}" for one in times), *(f"{_spread(one, 2):>22s}" for one in ratios)]
            print(f"{num_ranks:5d}" + "".join(cells), flush=True)
            one = "".join(f"{single:>24.1f}" for single in singles)
            print(f"{'one':>5s}{one}" + "".join(f"{single / singles[0]:>22.2f}" for single in singles[1:]), flush=True)


def _bare(comm: Any, num_peers: int) -> tuple[Callable[[Any], None], Any]:
    """Return the exchange as one would write it by hand, and the memory in which its rows arrive."""
    from mpi4py import MPI

    peers = [rank for rank in range(comm.size) if rank != comm.rank]
    sent, found = np.empty(1, np.float32), np.empty(num_peers, np.float32)
    sends = [comm.Send_init(sent, peer) for peer in peers]
    recvs = [comm.Recv_init(found[i : i + 1], peer) for i, peer in enumerate(peers)]
    both = recvs + sends

    def run(x: Any) -> None:
        MPI.Prequest.Startall(recvs)
        sent[0] = x[0, 0]
        MPI.Prequest.Startall(sends)
        while not MPI.Request.Testall(both):
            os.sched_yield()

    return run, found


def _timed(act: Callable[[], object], calls: int, transport: Any) -> float:
    transport.barrier()
    begin = time.perf_counter()
    for _ in range(calls):
        act()
    return (time.perf_counter() - begin) / calls


def _lower_quartile(act: Callable[[], object], calls: int, transport: Any) -> float:
    """Return the microseconds of a call of this rank that nobody held up: a quarter of all calls take no longer."""
    transport.barrier()
    times = np.empty(calls)
    for call in range(calls):
        begin = time.perf_counter()
        act()
        times[call] = time.perf_counter() - begin
    return 1e6 * float(np.quantile(times, 0.25))


def _spread(values: Any, digits: int) -> str:
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle:.{digits}f} [{low:.{digits}f} {high:.{digits}f}]"


if __name__ == "__main__":
    sys.exit(main())
