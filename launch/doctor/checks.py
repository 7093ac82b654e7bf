"""All findings about a job, the worst first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from sparsecomm.launch.doctor.check_cpus import check_cpus
from sparsecomm.launch.doctor.check_gpus import check_gpus
from sparsecomm.launch.doctor.check_limits import check_limits
from sparsecomm.launch.doctor.check_mpi import check_mpi
from sparsecomm.launch.doctor.check_software import check_software
from sparsecomm.launch.doctor.facts import Facts
from sparsecomm.launch.doctor.finding import ERROR, LEVELS, Finding, merge_nodes

Check = Callable[[Facts], Iterator[Finding]]
CHECKS: Final[tuple[Check, ...]] = (check_mpi, check_software, check_gpus, check_cpus, check_limits)


def find_all(facts: Facts) -> list[Finding]:
    """Return what is wrong, errors first; findings follow from the facts alone."""
    found = merge_nodes(finding for check in CHECKS for finding in check(facts))
    return sorted(found, key=lambda finding: LEVELS.index(finding.level))


def exit_code(findings: list[Finding]) -> int:
    """Return 1 where something would stop a job, else 0."""
    return int(any(finding.level == ERROR for finding in findings))
