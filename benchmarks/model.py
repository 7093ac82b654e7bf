"""Predicted over measured times of products on the virtual cluster, after `sparsecomm calibrate` there.

    python benchmarks/model.py [--json FILE] [--matrices rmat:14,...] [--widths 16,64] [--bandwidth 1gbit]

It needs root, and makes and removes a virtual cluster of its own. What the figures mean: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Final

from _cluster import COMMAND, cluster
from _machine import machine, machine_text
from _results import Json, write_results

DATA: Final = Path(__file__).resolve().parents[2] / "shared" / "data" / "matrices"
MATRICES: Final = ("rmat:14", "er:20000:16", "grid3d:32", "grid2d:256", "ego-twitter.npz", "email-enron.npz")


def main() -> int:
    args = _arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with cluster("model", args.nodes, args.ranks_per_node, args.bandwidth) as run:
            run(*COMMAND, "calibrate", "-o", str(folder / "calibration.json"))
            job = str(Path(__file__).with_name("_model_job.py"))
            cases = [",".join(map(_found, args.matrices.split(","))), args.strategies, args.widths]
            run(sys.executable, job, str(folder), *cases)
        calibration, cases = (json.loads((folder / f"{one}.json").read_text()) for one in ("calibration", "cases"))
    calibration["host"] = "model"
    shape = f"{args.nodes} nodes of {args.ranks_per_node} ranks, {args.bandwidth} links"
    report = {"machine": machine(), "cluster": shape, "calibration": calibration, "cases": cases}
    _print(report)
    write_results(args.json, report)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything measured to FILE")
    parser.add_argument("--matrices", default=",".join(MATRICES), help="files or generators, by commas")
    parser.add_argument("--strategies", default="direct,hierarchical,cover", help="by commas")
    parser.add_argument("--widths", default="16,64", help="columns of X, by commas (16,64)")
    parser.add_argument("--nodes", type=int, default=4, help="of the cluster (4)")
    parser.add_argument("--ranks-per-node", type=int, default=2, help="of the cluster (2)")
    parser.add_argument("--bandwidth", default="1gbit", help="of its links (1gbit)")
    return parser.parse_args()


def _found(matrix: str) -> str:
    """Return a file beside the checkout where a name is one."""
    return str(DATA / matrix) if (DATA / matrix).exists() else matrix


def _print(report: Json) -> None:
    print(machine_text(report["machine"]))
    print(f"cluster    {report['cluster']}")
    for name, link in report["calibration"]["levels"].items():
        rates = f"{link['rank_Bps'] / 1e6:,.0f} MB/s a rank, {link['group_Bps'] / 1e6:,.0f} MB/s a group"
        print(f"{name:11s}{1e6 * link['latency_s']:.0f} us a message, {rates}")
    print(
        f"\n{'matrix':18s}{'strategy':14s}{'width':>6s}{'predicted':>12s}{'measured':>12s}{'ratio':>8s}  largest part"
    )
    for case in report["cases"]:
        print(
            f"{case['matrix']:18s}{case['strategy']:14s}{case['width']:6d}{1e3 * case['predicted_s']:9.2f} ms"
            f"{1e3 * case['measured_s']:9.2f} ms{_ratio(case):8.2f}  {case['limit']}"
        )
    print(f"\npredicted/measured: median {median(map(_ratio, report['cases'])):.2f}")
    off = median(abs(_ratio(case) - 1) for case in report["cases"])
    print(f"off by (median of |predicted/measured - 1|): {100 * off:.0f} % over {len(report['cases'])} cases")


def _ratio(case: Json) -> float:
    return float(case["predicted_s"] / case["measured_s"])


if __name__ == "__main__":
    raise SystemExit(main())
