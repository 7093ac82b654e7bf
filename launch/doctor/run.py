"""The command `doctor`: gather, find, print once."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from sparsecomm.launch.doctor.checks import exit_code, find_all
from sparsecomm.launch.doctor.facts import Facts, find_process
from sparsecomm.launch.doctor.finding import Finding
from sparsecomm.launch.doctor.joining import join


def run_doctor(*, as_json: bool, probe: bool) -> int:
    """Print the page of this job on its first rank and return the exit code: 1 where something would stop a job.

    The other ranks return 0: some launchers end a job when any rank fails, and the page may not be out yet.

    Note: Collective over the world.
    """
    facts = join(find_process())
    if not speaks(facts):
        return 0
    if probe:
        from sparsecomm.launch.doctor.probe import probe_gpu_mpi

        facts = replace(facts, probe=probe_gpu_mpi(facts))
    findings = find_all(facts)
    _print(facts, findings, as_json)
    return exit_code(findings)


def speaks(facts: Facts) -> bool:
    """Say whether this process prints: MPI's rank 0, or the launcher's where MPI does not join the processes."""
    joined = facts.world.size is not None and facts.world.size > 1
    is_member = facts.world.size is None and not facts.world.error
    place = facts.first.place
    return joined or (not is_member and (place is None or place.rank == 0))


def _print(facts: Facts, findings: list[Finding], as_json: bool) -> None:
    if as_json:
        from sparsecomm.launch.options import print_json

        print_json(to_json(facts, findings))
    else:
        from sparsecomm.launch.doctor.page import show_page

        show_page(facts, findings)


def to_json(facts: Facts, findings: list[Finding]) -> dict[str, Any]:
    """Return the page for machines."""
    place = facts.first.place
    return {
        "schema": "sparsecomm.doctor/1",
        "launcher": place.launcher if place else None,
        "ranks": facts.num_started,
        "gathered": facts.is_whole,
        "nodes": [{"host": facts.processes[ranks[0]].host, "ranks": ranks} for ranks in facts.by_node().values()],
        "mpi": asdict(facts.world),
        "gpu_mpi": asdict(facts.probe),
        "processes": [_process(facts, rank) for rank in range(len(facts.processes))],
        "findings": [asdict(finding) for finding in findings],
        "exit_code": exit_code(findings),
    }


def _process(facts: Facts, rank: int) -> dict[str, Any]:
    process = facts.processes[rank]
    found = asdict(process)
    found["variables"] = dict(process.variables)
    for group in ("packages", "minimum", "mpi_wheels", "cupy_wheels"):
        found["software"][group] = dict(getattr(process.software, group))
    found["gpus"] |= {"seen": list(process.gpus.seen), "own_uuid": process.gpus.own_uuid}
    return {"rank": rank if facts.is_whole or process.place is None else process.place.rank, **found}
