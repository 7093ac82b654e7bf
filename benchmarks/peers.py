"""Ours and what others would use, side by side in one job: on a virtual cluster with slow links, or on one node.

    python benchmarks/peers.py [--json FILE] [--matrices ego-twitter.npz,...] [--bandwidth 1gbit] [--what move]
    python benchmarks/peers.py --nodes 1 --ranks-per-node 4 --ours direct,shared --what multiply

A cluster needs root and Linux; one node is this machine, and needs neither.
What the figures mean: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from _cluster import COMMAND, can_make_cluster, cluster, one_node
from _machine import machine, machine_text
from _results import Json, words, write_results

from sparsecomm.apps.source import load_source, save_source
from sparsecomm.launch.cluster.names import parse_bandwidth
from sparsecomm.launch.world import env_size
from sparsecomm.topology import Topology

DATA: Final = Path(__file__).resolve().parents[2] / "shared" / "data" / "matrices"
REAL: Final = ("ego-twitter.npz", "soc-slashdot0902.npz", "email-enron.npz")
OURS: Final = ("direct", "hierarchical", "cover", "auto", "auto/shared")
PEERS: Final = ("alltoallv", "neighbours", "allgatherv")
WIDTHS: Final = (10, 22, 12, 10, 10, 10, 11, 12)


def main() -> int:
    args = _arguments()
    if args.what == "move" and "redistribute" in args.ours:
        raise SystemExit("redistribute makes its products between its two moves; time it with --what multiply")
    if env_size(os.environ) is not None:
        from _peers_job import run

        run(args)
        return 0
    if args.nodes > 1 and not can_make_cluster():
        return 0
    with tempfile.TemporaryDirectory(prefix="sparsecomm-bench-") as scratch:
        folders = _partition_all(args, Path(scratch))
        results, measured = Path(scratch) / "results.json", Path(scratch) / "calibration.json"
        with _place(args) as run:
            run(*COMMAND, "calibrate", "-o", str(measured))
            hidden = ["--results", str(results), "--calibration", str(measured), "--folders", *folders]
            run(sys.executable, __file__, *sys.argv[1:], *hidden)
        found = json.loads(results.read_text())
    _report(args, found)
    write_results(args.json, found)
    return 0


def _place(args: argparse.Namespace) -> AbstractContextManager[Callable[..., None]]:
    if args.nodes == 1:
        return one_node(args.ranks_per_node)
    return cluster("peers", args.nodes, args.ranks_per_node, args.bandwidth)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything measured to FILE")
    parser.add_argument("--matrices", type=words, default=[str(DATA / name) for name in REAL], help="by commas")
    parser.add_argument("--partition", default="block", help="of ours (block)")
    parser.add_argument("--peers-partition", default="", help="of the others (that of ours)")
    parser.add_argument("--width", type=int, default=64, help="columns of X, float32 (64)")
    parser.add_argument("--nodes", type=int, default=4, help="of the cluster; 1 is this machine, without one (4)")
    parser.add_argument("--ranks-per-node", type=int, default=2, help="of each node (2)")
    parser.add_argument("--bandwidth", default="1gbit", help="of each link, each way (1gbit)")
    parser.add_argument(
        "--what", choices=["move", "multiply"], default="move", help="rows alone, or the product (move)"
    )
    parser.add_argument("--rounds", type=int, default=12, help="paired repetitions (12)")
    parser.add_argument("--ours", type=words, default=list(OURS), help=f"by commas ({','.join(OURS)})")
    parser.add_argument("--peers", type=words, default=list(PEERS), help=f"by commas ({','.join(PEERS)})")
    parser.add_argument("--against", default="alltoallv", help="which the others are compared with (alltoallv)")
    for hidden in ("--results", "--calibration"):
        parser.add_argument(hidden, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--folders", nargs="*", default=[], help=argparse.SUPPRESS)
    return parser.parse_args()


def _partition_all(args: argparse.Namespace, scratch: Path) -> list[str]:
    """Write partition directories of each matrix, for ours and for the peers: partitioners need not run in MPI."""
    topology, folders = Topology.parse(f"uniform:{args.nodes}x{args.ranks_per_node}"), []
    for number, spec in enumerate(args.matrices):
        methods = (args.partition, args.peers_partition or args.partition)
        made = {method: str(scratch / f"{number:03d}-{place}") for place, method in enumerate(methods)}
        for method, folder in made.items():
            save_source(Path(folder), load_source(spec, topology, method=method), topology)
        folders += [made[method] for method in methods]
    return folders


def _report(args: argparse.Namespace, found: Json) -> None:
    print(machine_text(machine() | found["facts"]))
    print("\n" + _setting(args))
    heads = ("ms", f"{args.against} / it", "rows node", "network", "busiest", "wire ms", "ms / wire", "MB copied")
    for case in found["cases"]:
        parts = " and ".join(dict.fromkeys(case["partitions"]))
        least = f"; the two-party minimum needs {case['least_rows']:,} rows into a node" if args.nodes > 1 else ""
        print(f"\n{case['matrix']}, {parts}{least}")
        print(f"  {'':14s}" + _line(args, heads))
        for name, one in case["alternatives"].items():
            print(f"  {name:14s}" + _line(args, _cells(one)))
        print(f"  auto is {case['chosen']}; all products compared with scipy, largest error {case['max_error']:.1e}")
        if args.nodes == 1:
            print(f"  the fastest other / the fastest of ours {_best(args, case['alternatives']):.2f}")
        _report_paired(case)


def _setting(args: argparse.Namespace) -> str:
    ratio = "a ratio is taken within each round; median [quartiles]"
    if args.nodes == 1:
        return f"one node of {args.ranks_per_node} ranks, width {args.width} float32, {args.what}\n{ratio}"
    rate = parse_bandwidth(args.bandwidth)
    return (
        f"{args.nodes} nodes of {args.ranks_per_node} ranks, {args.bandwidth} links, width {args.width} float32\n"
        f"{ratio}; a wire is the busiest node's bytes, in or out, over\n"
        f"the rate of its link, less one burst of {1e3 / 250:.0f} ms ({rate / 8e6:.1f} MB/s)"
    )


def _line(args: argparse.Namespace, cells: Sequence[str]) -> str:
    """Return the cells of one line that matter: one node has no wire."""
    shown = (0, 1, 2, 7) if args.nodes == 1 else range(7)
    return "".join(f"{cells[i]:>{WIDTHS[i]}}" for i in shown)


def _best(args: argparse.Namespace, alternatives: Json) -> float:
    times = {name: one["seconds"][1] for name, one in alternatives.items()}
    return min(times[name] for name in args.peers) / min(times[name] for name in args.ours)


def _report_paired(case: Json) -> None:
    if case["auto_over_direct"]:
        ratio, low, high = case["auto_over_direct"]
        print(f"  auto / direct {ratio:.3f}, 95 % bootstrap interval of the median [{low:.3f}, {high:.3f}]")


def _cells(one: Json) -> list[str]:
    low, middle, high = one["faster"]
    time_s, wire_s = one["seconds"][1], one["wire_s"]
    return [
        f"{1e3 * time_s:.2f}",
        f"{middle:.2f} [{low:.2f} {high:.2f}]",
        *(f"{rows:,}" for rows in (*one["rows"], one["busiest"])),
        f"{1e3 * wire_s:.2f}",
        f"{time_s / wire_s:.2f}" if wire_s else "",
        f"{one['copied'] / 1e6:.2f}",
    ]


if __name__ == "__main__":
    sys.exit(main())
