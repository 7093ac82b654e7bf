"""Faults at random moments on a virtual cluster; a few of them always, a hundred and more in the campaign."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from benchmarks._machine import machine as machine_facts
from benchmarks._machine import machine_text
from tests.cluster.conftest import Clusters, clusters
from tests.cluster.faults import DEADLINE_S, KINDS, SOON_S, Outcome, commit, draw
from tests.jobs import ROOT

RESULT = ROOT / "benchmarks" / "results" / "fault_campaign.md"


@pytest.mark.parametrize("kind", ["kill", "stop", "cut"])
def test_a_fault_is_found_and_named(cluster: Clusters, kind: str) -> None:
    outcome = commit(draw(1, seed=3, kinds=[kind])[0], cluster)
    assert not outcome.problem, (outcome.problem, outcome.fault, outcome.verdicts, outcome.stderr)


@pytest.mark.campaign
def test_campaign(machine: None) -> None:
    with clusters("faults") as cluster:
        cluster.up("--nodes", "4")
        outcomes = []
        for fault in draw(108, seed=1):
            outcomes.append(commit(fault, cluster))
            write(outcomes, RESULT)  # each time: what was found is kept when the campaign is cut off
    problems = [(outcome.problem, outcome.fault, outcome.verdicts) for outcome in outcomes if outcome.problem]
    assert not problems


def write(outcomes: list[Outcome], path: Path) -> None:
    """Write what came of all faults as a table."""
    rows = []
    for mpi in ("mpich", "openmpi"):
        for kind in KINDS:
            some = [one for one in outcomes if (one.fault.mpi, one.fault.kind) == (mpi, kind)]
            if not some:
                continue
            times = sorted(one.seconds for one in some)
            codes = ", ".join(f"{code} ({number}x)" for code, number in sorted(Counter(o.rc for o in some).items()))
            good = sum(not one.problem for one in some)
            rows.append(
                f"| {mpi} | {kind} | {len(some)} | {good} | {times[len(times) // 2]:.1f} | {times[-1]:.1f} | {codes} |"
            )
    path.write_text(
        f"""# Faults on a virtual cluster

`make campaign` writes this page. Four nodes of two ranks, links of 1 gbit, products without end; one rank is killed,
stopped, raises, exits (cleanly, or so that nothing is cleaned up after it), or the link of its node is cut, at a random
moment. A fault is passed when the job ends within {SOON_S:g} s of it (stopped and cut: within the deadline of
{DEADLINE_S:g} s and {SOON_S:g} s more), with an exit code that is not 0, names the rank or node at fault and no other,
and leaves no process.

| MPI | fault | jobs | passed | median s to the end | longest | exit codes |
| --- | --- | --- | --- | --- | --- | --- |
"""
        + "\n".join(rows)
        + f"\n\n```\n{machine_text(facts())}\n```\n"
    )


def facts() -> dict[str, str]:
    return machine_facts() | {"command": "make campaign"}
