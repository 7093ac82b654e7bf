"""The ranks of ours beside those of PETSc; see `petsc.py`."""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack
from typing import Any

import numpy as np
from _by_hand import NeededRows
from _peers_job import Alternative, _ours, _peer, _volume
from _spmm_job import mpi_library
from _turns import WARM_UPS, Turns, timed

from sparsecomm.apps.job import bring
from sparsecomm.collectives.transport.mpi import MpiTransport
from sparsecomm.collectives.transport.open import detect_topology

Json = dict[str, Any]


def run(args: argparse.Namespace) -> None:
    """Measure one matrix in turns with the other job, and write the results; collective over the job."""
    if args.what == "multiply":
        import sparsecomm.kernels.loops  # noqa: F401  # as every program has them that multiplies for a second

    x = np.load(args.folder / "x.npy", mmap_mode="r")
    with MpiTransport() as transport, ExitStack() as stack:
        topology = detect_topology(transport)
        share = bring(str(args.folder / "ours"), topology, transport, dtype=x.dtype)
        made = {name: _ours(share, name, topology, transport, args.width, stack) for name in args.ours}
        offsets = share.layouts.cols.offsets
        hand = NeededRows(share.rows, offsets, transport.comm, args.width)
        made["alltoallv"] = _peer(hand, topology, transport)
        own = share.layouts.cols.own_rows(transport.rank)
        for one in made.values():
            one.x[...] = x[own.start : own.stop]
        results = {name: one.multiply() for name, one in made.items()}
        if args.what == "move":  # what PETSc fetches is what is fetched by hand, which has it side by side
            results = {"alltoallv": hand.fetched()}
        squares = {name: np.square(rows, dtype=np.float64).sum() for name, rows in results.items()}
        norms = {name: float(np.sqrt(transport.reduce(np.array([s]), "sum")[0])) for name, s in squares.items()}
        seconds = _take_turns(args, made, transport)
        rows = {name: _volume(one.moved, topology, transport)[1] for name, one in made.items()}
        if transport.rank == 0:
            facts = {"mpi": mpi_library(), "ranks": str(transport.num_ranks)}
            found = {"seconds": seconds, "norms": norms, "rows": rows, "facts": facts}
            (args.folder / "ours.json").write_text(json.dumps(found))


def _take_turns(args: argparse.Namespace, made: dict[str, Alternative], transport: MpiTransport) -> Json:
    """Return the seconds of the slowest rank in every round.

    Note: Collective over comm.
    """
    turns = Turns(args.folder / "turns", 0, transport.rank)
    acts, mine = [getattr(one, args.what) for one in made.values()], []
    turns.ready()
    for number in range(WARM_UPS + args.rounds):
        turns.wait()
        order = np.roll(np.arange(len(acts)), -number)
        times = {int(act): timed(transport.comm, acts[act]) for act in order}
        mine.append([times[act] for act in range(len(acts))])
        transport.barrier()
        turns.pass_on()
    slowest = transport.reduce(np.array(mine)[WARM_UPS:], "max")
    return dict(zip(made, slowest.T.tolist(), strict=True))
