"""Random plans through every transport, compared bit for bit with the reference; run with ranks to do it under MPI.

mpiexec -n 4 python -m tests.transport_campaign FIRST LAST
"""

from __future__ import annotations

import sys

import numpy as np

from sparsecomm.collectives.exchange import Exchange
from sparsecomm.collectives.execute import execute, execute_reverse
from sparsecomm.collectives.transport.base import Transport
from tests.exchange_cases import DTYPES, blocks, same_bits
from tests.reference_plans import direct_plan, hub_plan, random_case

WIRES = (None, None, np.float16, "bfloat16", "int8")


def check_random_plan(transport: Transport, seed: int) -> None:
    """Draw a plan, a type, wire formats of both levels and more; two runs forwards and two in reverse.

    Note: Collective over comm.
    """
    rng, rank = np.random.default_rng([seed, transport.num_ranks]), transport.rank
    make = (direct_plan, hub_plan)[rng.integers(2)]
    plan = make(random_case(transport.num_ranks, seed, most_rows=int(rng.integers(1, 40))))
    dtype = DTYPES[rng.integers(len(DTYPES))]
    short = dtype in (np.float32, np.float64)
    wires = [WIRES[rng.integers(len(WIRES))] if short else None for _ in range(2)][: plan.topology.num_levels]
    width, delta, num_shared = int(rng.integers(1, 20)), bool(rng.random() < 0.3), int(rng.integers(2))
    near = transport.duplicate(num_shared)
    levels = plan.topology.num_levels
    with Exchange(plan.rank(rank), near, width, dtype, wire_dtype=wires, num_levels=levels, delta=delta) as exchange:
        for lap in range(2):
            xs = blocks(plan.offsets, width, dtype, seed + lap)
            ys = blocks(plan.ghost_indptr, width, dtype, seed + lap + 1)
            found = exchange.forward(xs[rank])
            assert same_bits(found, execute(plan, xs, wire_dtype=wires)[rank]), f"seed {seed}, forwards"
            found = exchange.reverse(ys[rank])
            assert same_bits(found, execute_reverse(plan, ys, wire_dtype=wires)[rank]), f"seed {seed}, in reverse"
    near.close()


def main(first: int, last: int) -> None:
    from sparsecomm.collectives.transport.mpi import MpiTransport

    with MpiTransport() as transport:
        for seed in range(first, last):
            check_random_plan(transport, seed)
        if transport.rank == 0:
            print(f"{last - first} plans on {transport.num_ranks} ranks: equal bit for bit")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
