"""Small runs that repeat, as a request for each message and as one call of all ranks.

    python benchmarks/as_one.py [--ranks 2,4,8] [--widths 1,64] [--calls 40] [--rounds 300]

Every rank gets one row of each other rank. What the figures mean: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from _cluster import in_jobs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--ranks", default="2,4,8", help="by commas (2,4,8)")
    parser.add_argument("--widths", default="1,64", help="of rows of float32, by commas (1,64)")
    parser.add_argument("--calls", type=int, default=40, help="in one round (40)")
    parser.add_argument("--rounds", type=int, default=300, help="of each, in turn (300)")
    args = parser.parse_args()
    what = "microseconds of Exchange.forward, median of the rounds [quartiles]; the ratio is taken in a round"
    columns = f"{'ranks':>5s}{'width':>6s}{'requests':>24s}{'as one':>24s}{'as one / requests':>22s}"
    return in_jobs(_in_job, args, what, columns)


def _in_job(args: argparse.Namespace) -> None:
    from sparsecomm.collectives.transport.mpi import MpiTransport

    class Always(MpiTransport):
        wins_as_one = True

    class Never(MpiTransport):
        wins_as_one = False

    for width in map(int, args.widths.split(",")):
        with Never() as requests, Always() as as_one:
            rounds = _rounds([requests, as_one], width, args)
            times = 1e6 * requests.reduce(rounds, "max").T
            if requests.rank == 0:
                cells = "".join(f"{_spread(one, 1):>24s}" for one in times)
                print(f"{requests.num_ranks:5d}{width:6d}{cells}{_spread(times[1] / times[0], 2):>22s}", flush=True)


def _rounds(transports: list[Any], width: int, args: argparse.Namespace) -> Any:
    """Return the seconds of a call, (rounds, transports), after the calls that all begin with."""
    from sparsecomm.collectives.copies import build_rank_plan
    from sparsecomm.collectives.direct import direct_copies
    from sparsecomm.collectives.exchange import Exchange
    from sparsecomm.layout import Layout
    from sparsecomm.pattern import Pattern
    from sparsecomm.topology import Topology

    num_ranks, rank = transports[0].num_ranks, transports[0].rank
    others = 8 * np.delete(np.arange(num_ranks), rank)
    pattern = Pattern.of_requests(np.full(others.size, rank, np.int32), others, Layout.block(8 * num_ranks, num_ranks))
    plan = build_rank_plan(direct_copies(pattern, Topology.from_nodes(np.zeros(num_ranks))), transports[0])
    x = np.full((8, width), rank, dtype=np.float32)
    exchanges = [Exchange(plan, transport, width) for transport in transports]
    for exchange in exchanges:
        for _ in range(100):
            np.testing.assert_array_equal(exchange.forward(x)[:, 0], others // 8)
    acts = [lambda exchange=exchange: exchange.forward(x) for exchange in exchanges]
    times = np.array([[_timed(act, args.calls, transports[0]) for act in acts] for _ in range(args.rounds)])
    for exchange in exchanges:
        exchange.close()
    return times


def _timed(act: Callable[[], object], calls: int, transport: Any) -> float:
    transport.barrier()
    begin = time.perf_counter()
    for _ in range(calls):
        act()
    return (time.perf_counter() - begin) / calls


def _spread(values: Any, digits: int) -> str:
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle:.{digits}f} [{low:.{digits}f} {high:.{digits}f}]"


if __name__ == "__main__":
    sys.exit(main())
