"""Random plans through every transport, compared bit for bit with the reference.

mpiexec -n 4 python -m tests.transport_campaign FIRST LAST
python -m tests.transport_campaign FIRST LAST THREADS

Prints a line of the table in benchmarks/results/transport_campaign.md: how many plans there were, and of these how many
went through shared memory inside a node, with rounded rows, with only rows that changed, and from the second run on as
one call of all ranks.
"""

from __future__ import annotations

import sys
import time
from typing import NamedTuple
from unittest import mock

import numpy as np

from sparsecomm.collectives.exchange import Exchange
from sparsecomm.collectives.execute import execute, execute_reverse
from sparsecomm.collectives.transport.base import Transport
from tests.as_one_bodies import AsOne
from tests.exchange_cases import DTYPES, blocks, same_bits
from tests.reference_plans import direct_plan, hub_plan, random_case

WIRES = (None, None, np.float16, "bfloat16", "int8")


class Drawn(NamedTuple):
    """What a seed drew, or how many drew it."""

    shared: int
    rounded: int
    delta: int
    as_one: int


def check_random_plan(transport: Transport, seed: int) -> Drawn:
    """Draw a plan, a type, wire formats of both levels and more; three runs forwards and three in reverse.

    Note: Collective over comm.
    """
    rng, rank = np.random.default_rng([seed, transport.num_ranks]), transport.rank
    make = (direct_plan, hub_plan)[rng.integers(2)]
    plan = make(random_case(transport.num_ranks, seed, most_rows=int(rng.integers(1, 40))))
    dtype = DTYPES[rng.integers(len(DTYPES))]
    short = dtype in (np.float32, np.float64)
    wires = [WIRES[rng.integers(len(WIRES))] if short else None for _ in range(2)][: plan.topology.num_levels]
    width, delta, num_shared = int(rng.integers(1, 20)), bool(rng.random() < 0.3), int(rng.integers(2))
    near = AsOne(transport.duplicate(num_shared))
    near.wins_as_one = bool(rng.random() < 0.5)
    levels = plan.topology.num_levels
    with Exchange(plan.rank(rank), near, width, dtype, wire_dtype=wires, num_levels=levels, delta=delta) as exchange:
        for lap in range(3):
            xs = blocks(plan.offsets, width, dtype, seed + lap)
            ys = blocks(plan.ghost_indptr, width, dtype, seed + lap + 1)
            found = exchange.forward(xs[rank])
            assert same_bits(found, execute(plan, xs, wire_dtype=wires)[rank]), f"seed {seed}, forwards"
            found = exchange.reverse(ys[rank])
            assert same_bits(found, execute_reverse(plan, ys, wire_dtype=wires)[rank]), f"seed {seed}, in reverse"
        drawn = Drawn(exchange.num_shared, int(any(wires)), int(delta), int(bool(near.joined)))
    near.close()
    return drawn


def check_plans(transport: Transport, seeds: range) -> Drawn:
    """Return how many of the seeds drew what.

    Note: Collective over comm.
    """
    return Drawn(*np.sum([check_random_plan(transport, seed) for seed in seeds], axis=0).tolist())


def main(first: int, last: int, threads: int = 0) -> None:
    seeds, begin = range(first, last), time.monotonic()
    if threads:
        from sparsecomm.collectives.transport.local import run_local

        kind, ranks, drawn = "threads", threads, run_local(threads, lambda world: check_plans(world, seeds))[0]
    else:
        from sparsecomm.collectives.transport.mpi import MpiTransport

        with MpiTransport() as transport:
            kind, ranks, drawn = _library(), transport.num_ranks, check_plans(transport, seeds)
            if transport.rank:
                return
    print(f"{len(seeds)} plans on {ranks} ranks: equal bit for bit")
    counts = " | ".join(map(str, (len(seeds), *drawn)))
    print(f"| {kind} | {ranks} | {first} .. {last - 1} | {counts} | {time.monotonic() - begin:.0f} |")


def _library() -> str:
    from mpi4py import MPI

    name, version = MPI.get_vendor()
    return f"{name} {'.'.join(map(str, version))}"


if __name__ == "__main__":
    with mock.patch("sparsecomm.collectives.direction._ASUNDER", 1):
        main(*map(int, sys.argv[1:]))
