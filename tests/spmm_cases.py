"""Many products in one job: `python -m tests.spmm_cases CASES REPORTS` runs on every rank of it.

CASES is a JSON list of `{"topology": ..., "options": {...}}`, the options those of `SpmmOptions`; REPORTS gets one line
of JSON a case, what `spmm --json` prints.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.jobs import run_job

Json = dict[str, Any]
STARTUP_S = 60.0
CASE_S = 30.0

# Nodes of one rank, uneven nodes, and two nodes alike.
TOPOLOGIES = {1: "nodes:1", 2: "nodes:1,1", 3: "nodes:2,1", 4: "uniform:2x2", 7: "nodes:3,3,1"}
STRATEGIES = ("direct", "hierarchical", "reduce", "hybrid")
METHODS = ("block", "metis")
DTYPES = ("float32", "float64")
WORST = {"float32": 1e-5, "float64": 1e-12}


def run_cases(ranks: int, cases: list[Json], folder: Path, mpi: str = "mpich") -> list[Json]:
    """Run all cases in one job and return their reports."""
    given, out = folder / f"cases.{ranks}.json", folder / f"reports.{ranks}.jsonl"
    given.write_text(json.dumps(cases))
    argv = ["python", "-m", "tests.spmm_cases", str(given), str(out)]
    job = run_job(ranks, argv, mpi=mpi, timeout=STARTUP_S + CASE_S * len(cases))
    assert job.rc == 0, job
    return [json.loads(line) for line in out.read_text().splitlines()]


def check(case: Json, report: Json) -> None:
    """Hold what ran against what was asked for and what was planned."""
    options = case["options"]
    assert report["dtype"] == options["dtype"], report
    assert report["transpose"] == options["transpose"], report
    assert report["chosen"] == options["strategy"], report
    assert report["verified"] is True, report
    assert report["max_error"] <= WORST[options["dtype"]], report
    planned = report["strategies"][options["strategy"]]
    for noun in ("rows", "bytes", "messages"):
        assert report["executed"][noun] == planned[noun], (case, noun)


def _main(given: Path, out: Path) -> None:
    # Here only: a process that has loaded MPI starts no others, and pytest must.
    from sparsecomm.apps.spmm import SpmmOptions, run_spmm
    from sparsecomm.collectives.transport.mpi import MpiTransport
    from sparsecomm.topology import Topology

    cases = json.loads(given.read_text())
    with MpiTransport() as transport:
        for case in cases:
            report = run_spmm(SpmmOptions(**case["options"]), Topology.parse(case["topology"]), transport)
            if transport.rank == 0:
                with out.open("a") as lines:
                    lines.write(json.dumps(report) + "\n")
        transport.barrier()


if __name__ == "__main__":
    _main(*map(Path, sys.argv[1:]))
