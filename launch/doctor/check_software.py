"""Findings about Python and its packages."""

from __future__ import annotations

from collections.abc import Iterator

from sparsecomm.launch.doctor.differences import describe
from sparsecomm.launch.doctor.facts import Facts
from sparsecomm.launch.doctor.finding import ERROR, Finding
from sparsecomm.launch.doctor.software import numbers, versions


def check_software(facts: Facts) -> Iterator[Finding]:
    """Yield packages that are too old, and ranks whose environments differ."""
    software = facts.first.software
    for name, least in software.minimum:
        version = software.version(name)
        if version and numbers(version) < numbers(least):
            text = f"{name} {version} is installed, sparsecomm needs {least} or newer"
            yield Finding("old package", ERROR, text, f"pip install -U '{name}>={least}'")
    kinds = describe([versions(process.software) for process in facts.processes])
    if len(kinds) > 1:
        cure = "start all ranks with the same environment: give the full path of its python or sparsecomm"
        yield Finding("environments differ", ERROR, "; ".join(kinds), cure)
