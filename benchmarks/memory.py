"""Peak memory of ranks that plan together, each holding only its own rows, beside what it may be.

    python benchmarks/memory.py [--json FILE] [--matrix rmat:20:16] [--topology uniform:2x4] [--strategies cover ...]

What the figures mean: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from _machine import machine, machine_text

from sparsecomm.apps.job import bring
from sparsecomm.apps.source import load_source, save_source
from sparsecomm.collectives.strategy import get_strategy
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.launch.start import ENVIRONMENT, find_mpiexec
from sparsecomm.pattern import Remote
from sparsecomm.table import Column, Table
from sparsecomm.topology import Topology
from sparsecomm.typing import IntGlobal, IntRank

Json = dict[str, Any]

BASE_BYTES: Final = 150_000_000
EDGE_BYTES: Final = 200
STRATEGIES: Final = ("direct", "hierarchical", "reduce", "cover", "striped", "cover-striped")


def main() -> int:
    args = _arguments()
    if args.child is not None:
        return _in_job(args)
    with tempfile.TemporaryDirectory() as scratch:
        parts = Path(scratch) / "parts"
        topology = Topology.parse(args.topology)
        save_source(parts, load_source(args.matrix, topology), topology)
        cases = [_measured(args, name, parts) for name in args.strategies]
    _report({"machine": machine(), "matrix": args.matrix, "topology": args.topology, "cases": cases}, args.json)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything measured to FILE")
    parser.add_argument("--matrix", default="rmat:20:16", help="a file or a generator (rmat:20:16)")
    parser.add_argument("--topology", default="uniform:2x4", help="of the job (uniform:2x4)")
    parser.add_argument("--strategies", nargs="+", default=STRATEGIES, help="each in a job of its own")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def _measured(args: argparse.Namespace, strategy: str, parts: Path) -> Json:
    """Plan in a job of its own, so that no peak is that of another strategy."""
    print(f"planning {args.matrix} by {strategy}", file=sys.stderr)
    ranks = str(Topology.parse(args.topology).num_ranks)
    command = [find_mpiexec(), "-n", ranks, sys.executable, __file__, "--child", strategy]
    job = subprocess.run(
        [*command, "--matrix", str(parts), "--topology", args.topology],
        env={**ENVIRONMENT, **os.environ},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return {"strategy": strategy, "ranks": json.loads(job.stdout.splitlines()[-1])}


class _Counting:
    """A transport that notes the longest table that it moved to or from this rank."""

    def __init__(self, inner: Transport) -> None:
        self.inner, self.most = inner, 0

    @property
    def num_ranks(self) -> int:
        return self.inner.num_ranks

    @property
    def held(self) -> range:
        return self.inner.held

    def route(self, table: Table, to_rank: IntRank) -> Table:
        moved = self.inner.route(table, to_rank)
        self.most = max(self.most, len(table), len(moved))
        return moved

    def reduce(self, values: Column, op: Literal["sum", "max"]) -> Column:
        return self.inner.reduce(values, op)

    def collect(self, values: IntGlobal) -> IntGlobal:
        return self.inner.collect(values)


def _in_job(args: argparse.Namespace) -> int:
    from sparsecomm.collectives.transport.mpi import MpiTransport

    topology = Topology.parse(args.topology)
    with MpiTransport() as transport:
        share = bring(args.matrix, topology, transport)
        begun = _peak()
        router = _Counting(transport)
        remote = Remote.of(share.rows, share.layouts, transport.held)
        product = get_strategy(args.child).build_rank(remote, topology, router)
        ghosts = product.gather.num_ghost + product.scatter.num_ghost
        counts = np.array([share.rows.nnz, ghosts, router.most, begun, _peak()], dtype=np.int64)
        all_counts = _gathered(counts, transport)
        if transport.rank == 0:
            names = ("nonzeros", "ghosts", "routed", "peak_before", "peak")
            print(json.dumps([dict(zip(names, row, strict=True)) for row in all_counts.tolist()]))
    return 0


def _gathered(counts: IntGlobal, transport: Transport) -> npt.NDArray[np.int64]:
    """Return (num_ranks, num_counts)."""
    return np.stack([transport.collect(counts[i : i + 1]) for i in range(counts.size)], axis=1)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _report(results: Json, path: Path | None) -> None:
    print(machine_text(results["machine"]))
    ranks = len(results["cases"][0]["ranks"])
    print(f"\n{results['matrix']} on {ranks} ranks ({results['topology']}): the rank nearest to its limit of")
    print(f"{BASE_BYTES / 1e6:.0f} MB + {EDGE_BYTES} B x (own nonzeros + ghosts + routed edges)")
    heads = ("nonzeros", "ghosts", "routed", "before MB", "peak MB", "limit MB", "peak / limit")
    print(f"{'strategy':16s}" + "".join(f"{head:>14s}" for head in heads))
    for case in results["cases"]:
        worst = max(case["ranks"], key=lambda rank: rank["peak"] / _limit(rank))
        cells = [f"{worst[name]:,}" for name in ("nonzeros", "ghosts", "routed")]
        cells += [f"{value / 1e6:,.0f}" for value in (worst["peak_before"], worst["peak"], _limit(worst))]
        cells += [f"{worst['peak'] / _limit(worst):.2f}"]
        print(f"{case['strategy']:16s}" + "".join(f"{cell:>14s}" for cell in cells))
    if path is not None:
        path.write_text(json.dumps(results, indent=1) + "\n")


def _limit(rank: Json) -> int:
    return BASE_BYTES + EDGE_BYTES * int(rank["nonzeros"] + rank["ghosts"] + rank["routed"])


if __name__ == "__main__":
    sys.exit(main())
