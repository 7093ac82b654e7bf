"""Faults at random moments on a virtual cluster; a few of them always, a hundred and more in the campaign."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from benchmarks._machine import machine as machine_facts
from benchmarks._machine import machine_text
from tests.cluster.conftest import Clusters, clusters
from tests.cluster.faults import DEADLINE_S, KINDS, SOON_S, commit, draw
from tests.jobs import ROOT

RESULT = ROOT / "benchmarks" / "results" / "fault_campaign.md"
FOUND = ROOT / ".faults"  # what each part of the campaign has found; the table is made of all of it
MPIS = ("mpich", "openmpi")
NUM_FAULTS = 108


@pytest.mark.parametrize("kind", ["kill", "stop", "cut"])
def test_a_fault_is_found_and_named(cluster: Clusters, kind: str) -> None:
    outcome = commit(draw(1, seed=3, kinds=[kind])[0], cluster)
    assert not outcome.wrong, (outcome.wrong, outcome.fault, outcome.verdicts, outcome.stderr)


@pytest.fixture(scope="module")
def own_cluster(machine: None) -> Iterator[Clusters]:
    with clusters("faults") as cluster:
        cluster.up("--nodes", "4")
        yield cluster


@pytest.mark.campaign
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mpi", MPIS)
def test_campaign(mpi: str, kind: str, own_cluster: Clusters) -> None:
    faults = [fault for fault in draw(NUM_FAULTS, seed=1) if (fault.mpi, fault.kind) == (mpi, kind)]
    outcomes = [commit(fault, own_cluster) for fault in faults]
    FOUND.mkdir(exist_ok=True)
    (FOUND / f"{mpi}.{kind}.json").write_text(
        json.dumps([vars(one) | {"problem": one.problem} for one in outcomes], default=vars)
    )
    write(RESULT)
    problems = [(outcome.problem, outcome.fault, outcome.verdicts) for outcome in outcomes if outcome.problem]
    assert not problems


def write(path: Path) -> None:
    """Write what came of the faults of all parts of the campaign as a table."""
    rows = []
    for mpi, kind in product(MPIS, KINDS):
        found = FOUND / f"{mpi}.{kind}.json"
        if not found.exists():
            continue
        some = json.loads(found.read_text())
        times = sorted(one["seconds"] for one in some)
        codes = ", ".join(f"{code} ({number}x)" for code, number in sorted(Counter(one["rc"] for one in some).items()))
        good = sum(not one["problem"] for one in some)
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
