"""Wall time and peak memory of `sparsecomm plan`, each time in a process of its own.

    python benchmarks/plan.py [--json FILE] [--matrices rmat:20:16] [--topologies summit:8,summit:512]
                              [--strategy auto] [--repeats 3]
    python benchmarks/plan.py --together FILE ... [--json FILE]

What the figures mean: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Container, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

from _machine import machine, machine_text

Json = dict[str, Any]

START: Final = "starting Python"
REPORT: Final = "report"


def main() -> int:
    args = _arguments()
    if args.child is not None:
        _plan(args.matrices[0], args.child, args.strategy, args.began)
        return 0
    if args.together:
        _report(_together([json.loads(path.read_text()) for path in args.together]), args.json)
        return 0
    cases = []
    for matrix in args.matrices:
        for topology in args.topologies:
            runs = [_measured(matrix, topology, args.strategy, number) for number in range(args.repeats)]
            cases.append({"matrix": matrix, "topology": topology, "runs": runs})
    _report({"machine": machine(), "cases": cases}, args.json)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything measured to FILE")
    parser.add_argument(
        "--matrices",
        type=lambda text: text.split(","),
        default=["rmat:20:16"],
        help="files or generators, by commas (rmat:20:16)",
    )
    parser.add_argument(
        "--topologies",
        type=lambda text: text.split(","),
        default=["summit:8", "summit:512"],
        help="machines, by commas; ratios are to the first (summit:8,summit:512)",
    )
    parser.add_argument("--strategy", default="auto", help="auto, or one by name (auto)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each (3)")
    parser.add_argument("--together", type=Path, nargs="+", metavar="FILE", help="show what was measured before")
    parser.add_argument("--child", metavar="TOPOLOGY", help=argparse.SUPPRESS)
    parser.add_argument("--began", type=float, help=argparse.SUPPRESS)
    return parser.parse_args()


def _together(results: Sequence[Json]) -> Json:
    """Return the cases of all results, which were measured on one machine."""
    commands = [result["machine"]["command"] for result in results]
    facts = results[0]["machine"] | {"command": f"\n{'':11s}".join(commands)}
    return {"machine": facts, "cases": [case for result in results for case in result["cases"]]}


def _plan(matrix: str, topology_spec: str, strategy: str, began: float) -> None:
    """Do what the command does, and print the seconds of its steps as it names them.

    Args:
        matrix: a file or a generator.
        topology_spec: what to plan for.
        strategy: auto, or one by name.
        began: `time.time()` just before this process was started.
    """
    steps: list[tuple[str, float]] = [(START, began)]

    def say(step: str) -> None:
        steps.append((step, time.time()))

    from sparsecomm.apps.planning import plan_source
    from sparsecomm.apps.source import load_source
    from sparsecomm.launch.freed_memory import keep_freed_memory
    from sparsecomm.topology import Topology

    topology = Topology.parse(topology_spec)
    keep_freed_memory()
    planned = plan_source(load_source(matrix, topology, say=say), topology, strategy=strategy, say=say)
    say(REPORT)
    report = planned.to_json()
    ends = [*(at for _, at in steps[1:]), time.time()]
    names = {matrix, *report["strategies"]}
    phases = {_phase(name, names): end - at for (name, at), end in zip(steps, ends, strict=True)}
    facts = {"chosen": report["chosen"], "ranks": topology.num_ranks, "nonzeros": report["matrix"]["nnz"]}
    print(json.dumps({"phases": phases, **facts}))


def _phase(step: str, names: Container[str]) -> str:
    """Return a step without what differs from case to case: ranks, and the names of matrix and strategies."""
    return " ".join(word for word in step.split(" for ")[0].split() if word not in names)


def _measured(matrix: str, topology: str, strategy: str, number: int) -> Json:
    """Plan in a child process and return what it took, the child's last report among it."""
    print(f"planning {Path(matrix).name} for {topology}, run {number + 1}", file=sys.stderr)
    with tempfile.TemporaryFile("w+") as out:
        began, begin = time.time(), time.perf_counter()
        command = [sys.executable, __file__, "--matrices", matrix, "--child", topology, "--strategy", strategy]
        command += ["--began", repr(began)]
        child = subprocess.Popen(command, stdout=out)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - begin
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise SystemExit(f"planning for {topology} failed with exit code {child.returncode}")
        out.seek(0)
        spent = {"wall_s": wall, "cpu_s": usage.ru_utime + usage.ru_stime, "peak_gib": usage.ru_maxrss / 2**20}
        return spent | json.load(out)


def _report(results: Json, path: Path | None) -> None:
    print(machine_text(results["machine"]))
    print("\nmedian [minimum] of the runs; CPU seconds are those of all threads, in user and system")
    print(
        f"{'matrix':17s} {'topology':12s} {'ranks':>6s} {'nonzeros':>11s} {'chosen':>14s} {'runs':>4s} {'wall s':>16s} "
        f"{'CPU s':>16s} {'peak GiB':>14s} {'ns a nonzero':>13s}"
    )
    for case in results["cases"]:
        runs = case["runs"]
        cells = (_middle([run[key] for run in runs]) for key in ("wall_s", "cpu_s", "peak_gib"))
        line = (
            f"{Path(case['matrix']).name:17s} {case['topology']:12s} {runs[0]['ranks']:6d} {runs[0]['nonzeros']:11,d} "
        )
        line += f"{runs[0]['chosen']:>14s} {len(runs):4d}"
        line += "".join(f"{cell:>{width}s}" for cell, width in zip(cells, (17, 17, 15), strict=True))
        print(f"{line} {1e9 * median(run['wall_s'] for run in runs) / max(1, runs[0]['nonzeros']):13,.0f}")
    _print_ratios(results["cases"])
    _print_phases(results["cases"])
    if path is not None:
        path.write_text(json.dumps(results, indent=1) + "\n")


def _print_ratios(cases: Sequence[Json]) -> None:
    first = cases[0]
    for case in cases[1:]:
        wall, cpu = (
            median(run[key] for run in case["runs"]) / median(run[key] for run in first["runs"])
            for key in ("wall_s", "cpu_s")
        )
        print(f"{_case_name(case)} / {_case_name(first)}: wall {wall:.2f}, CPU {cpu:.2f} (ratio of the medians)")


def _case_name(case: Json) -> str:
    return f"{Path(case['matrix']).name} {case['topology']}"


def _print_phases(cases: Sequence[Json]) -> None:
    print("\nwall seconds of the steps, median [minimum]")
    names = [*dict.fromkeys(name for case in cases for name in case["runs"][0]["phases"])]
    print(f"{'':32s}" + "".join(f"{Path(case['matrix']).name:>18s}" for case in cases))
    print(f"{'':32s}" + "".join(f"{case['topology']:>18s}" for case in cases))
    for name in names:
        cells = (_middle([run["phases"].get(name, 0.0) for run in case["runs"]]) for case in cases)
        print(f"{name:32s}" + "".join(f"{cell:>18s}" for cell in cells))


def _middle(values: Sequence[float]) -> str:
    return f"{median(values):.2f} [{min(values):.2f}]"


if __name__ == "__main__":
    sys.exit(main())
