"""What recording costs: products with a profile, with none, and with none once more, in turn.

The third is the noise that the first has to be held against. Times are of the slowest rank. Where the noise is larger
than what is looked for, the processor time of the calls themselves says more: it is measured apart.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import timeit
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from _machine import machine, machine_text

from sparsecomm.launch.start import ENVIRONMENT, find_mpiexec
from sparsecomm.launch.world import env_size

Json = dict[str, Any]
MATRICES = ("rmat:14", "rmat:16", "grid2d:512")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything measured to FILE")
    parser.add_argument("--ranks", type=int, default=4, help="how many to start (4)")
    parser.add_argument("-k", "--width", type=int, default=64, help="columns of X (64)")
    parser.add_argument("--matrices", default=",".join(MATRICES), help="generators or files, by commas")
    parser.add_argument("--seconds", type=float, default=45.0, help="that rounds of one matrix take (45)")
    args = parser.parse_args()
    if env_size(os.environ) is None:
        command = [find_mpiexec(), "-n", str(args.ranks), sys.executable, __file__, *sys.argv[1:]]
        return subprocess.call(command, env={**ENVIRONMENT, **os.environ})
    return _in_job(args)


def _in_job(args: argparse.Namespace) -> int:
    from sparsecomm.collectives.transport.mpi import MpiTransport

    with MpiTransport() as transport, tempfile.TemporaryDirectory() as scratch:
        cases = [_measure(spec, args, Path(scratch), transport) for spec in args.matrices.split(",")]
        if transport.rank == 0:
            facts = machine() | {"ranks": str(args.ranks)}
            print(machine_text(facts))
            print("\nTime of a product, ratio to one without recording: median of the pairs [its 95 % interval]")
            heads = f"{'recorded':>24s}{'off, again':>24s}{'of means':>10s}{'spans':>8s}"
            print(f"{'matrix':14s}{'rounds':>8s}{'median ms':>10s}{heads}")
            for case in cases:
                cells = (f"{q[1]:.3f} [{q[0]:.3f} {q[2]:.3f}]" for q in (case["recorded"], case["again"]))
                print(f"{case['matrix']:14s}{case['rounds']:8d}{case['median_ms']:10.2f}", end="")
                print("".join(f"{cell:>24s}" for cell in cells) + f"{case['of_means']:10.3f}{case['spans']:8d}")
            calls = _calls_us()
            print("\nProcessor time of the calls: " + ", ".join(f"{name} {us:.3f} us" for name, us in calls.items()))
            print("and so, in percent of a product, on the rank with most messages:")
            print(f"{'matrix':14s}{'messages':>10s}{'recorded':>10s}{'off':>10s}")
            for case in cases:
                print(f"{case['matrix']:14s}{case['messages']:10d}", end="")
                print("".join(f"{share:10.4f}" for share in _shares(case, calls)))
            if args.json:
                results = {"machine": facts, "cases": cases, "calls_us": calls}
                args.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


def _measure(spec: str, args: argparse.Namespace, scratch: Path, transport: Any) -> Json:
    from sparsecomm.apps.job import bring
    from sparsecomm.apps.matrix import DistMatrix
    from sparsecomm.collectives.profile import Profile
    from sparsecomm.profile import activate
    from sparsecomm.topology import Topology

    topology = Topology.parse(f"uniform:2x{args.ranks // 2}")
    share = bring(spec, topology, transport)
    path = transport.bcast(str(scratch / spec.replace(":", "-")))
    with DistMatrix.from_rows(share.rows, share.layouts, topology, transport, width=args.width) as matrix:
        x = matrix.empty(args.width)
        x[...] = 1
        recorder = Profile.record(path, transport, topology=topology).recorder
        ways = {"recorded": recorder, "off": None, "again": None}
        times: dict[str, list[float]] = {name: [] for name in ways}
        orders, rounds, until = list(permutations(ways)), 0, time.perf_counter() + args.seconds
        while transport.bcast(time.perf_counter() < until or rounds < 20):
            rounds += 1
            for name in orders[rounds % len(orders)]:
                activate(ways[name])
                transport.barrier()
                began = time.perf_counter()
                matrix @ x
                times[name].append(time.perf_counter() - began)
                activate(None)
    slowest = {name: transport.reduce(np.array(values[10:]), "max") for name, values in times.items()}
    return {
        "matrix": spec,
        "width": args.width,
        "rounds": slowest["off"].size,
        "median_ms": 1e3 * float(np.median(slowest["off"])),
        "recorded": _median(slowest["recorded"] / slowest["off"]),
        "again": _median(slowest["again"] / slowest["off"]),
        "of_means": float(slowest["recorded"].mean() / slowest["off"].mean()),
        "medians": {name: float(np.median(values)) for name, values in slowest.items()},
        "spans": recorder.num_spans // rounds,
        "messages": int(transport.reduce(np.array([sum(len(track.table()) for track in recorder.tracks)]), "max")[0]),
    }


def _median(ratios: np.ndarray) -> list[float]:
    """Return the median and, around it, the ends of its 95 % interval by order statistics, which assumes nothing."""
    ordered, half = np.sort(ratios), 0.98 * np.sqrt(ratios.size)
    places = [int(ratios.size / 2 - half), int(np.ceil(ratios.size / 2 + half)) - 1]
    return [float(value) for value in (ordered[places[0]], np.median(ordered), ordered[places[1]])]


def _shares(case: Json, calls: dict[str, float]) -> list[float]:
    """Return the percent of a product that the calls for its messages take, recorded and off."""
    recorded = case["messages"] * (calls["sent"] + calls["landed"] + calls["unpacked"]) / 2 + 2 * calls["run"]
    off = 4 * case["messages"] * calls["off, a message"] + 4 * calls["off, a block"]
    return [us / 10 / case["median_ms"] for us in (recorded, off)]


def _calls_us() -> dict[str, float]:
    """Return the microseconds of processor time of what recording one message takes at either end, one run, and off."""
    from sparsecomm.profile import Recorder, TrackFacts, clock, products

    def block() -> None:
        with products().product("own"):
            pass

    nothing, message = None, np.array([[0, 1, 1, 10, 10]])
    track = Recorder(0, 2).track(TrackFacts("gather", "forwards", "", 4, "float32", (16, 16)), message, message)
    calls = {
        "sent": lambda: track.sent(0, 0, clock(), clock(), 160),
        "landed": lambda: track.landed(0, 0, 160),
        "unpacked": lambda: track.unpacked(0, 0, clock()),
        "run": lambda: (track.begin(), track.block(), track.unblock(0, 0)),
        "off, a message": lambda: nothing is not None,
        "off, a block": block,
    }
    count = 20_000
    return {
        name: min(timeit.repeat(call, number=count, repeat=9, timer=time.process_time)) / count * 1e6
        for name, call in calls.items()
    }


if __name__ == "__main__":
    sys.exit(main())
