"""Many networks in one job: `python -m tests.sdnn_cases CASES REPORTS` runs on every rank of it.

CASES is a JSON list of `{"topology": ..., "options": {...}}`, the options those of `SdnnOptions`; REPORTS gets one line
of JSON a case, what `sdnn --json` prints.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from sparsecomm.apps.sdnn.job import run_sdnn
from sparsecomm.apps.sdnn.problem import SdnnOptions
from sparsecomm.topology import Topology
from tests.jobs import run_job

Json = dict[str, Any]
STARTUP_S = 60.0
CASE_S = 60.0

MODES = ("data", "model", "hybrid")
PATHS = ("truth", "categories", "scratch")

# For `hybrid`: one node, two nodes of a rank, uneven nodes, and nodes alike.
TOPOLOGIES = {1: "nodes:1", 2: "nodes:2", 3: "nodes:2,1", 4: "uniform:2x2", 8: "nodes:4,4"}


def run_cases(ranks: int, cases: list[Json], folder: Path, mpi: str = "mpich") -> list[Json]:
    """Run all cases in one job and return their reports."""
    given, out = folder / f"cases.{ranks}.json", folder / f"reports.{ranks}.jsonl"
    given.write_text(json.dumps(cases))
    out.unlink(missing_ok=True)
    argv = ["python", "-m", "tests.sdnn_cases", str(given), str(out)]
    job = run_job(ranks, argv, mpi=mpi, timeout=STARTUP_S + CASE_S * len(cases))
    assert job.rc == 0, job
    return [json.loads(line) for line in out.read_text().splitlines()]


def _main(given: Path, out: Path) -> None:
    from sparsecomm.collectives.transport.mpi import MpiTransport

    with MpiTransport() as transport:
        for case in json.loads(given.read_text()):
            options = {key: Path(value) if key in PATHS else value for key, value in case["options"].items()}
            report = run_sdnn(SdnnOptions(**options), Topology.parse(case["topology"]), transport)
            if transport.rank == 0:
                with out.open("a") as lines:
                    lines.write(json.dumps(report) + "\n")
        transport.barrier()


if __name__ == "__main__":
    _main(*map(Path, sys.argv[1:]))
