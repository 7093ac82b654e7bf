"""What is wrong, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

ERROR: Final = "error"
WARNING: Final = "warning"
NOTE: Final = "note"
LEVELS: Final = (ERROR, WARNING, NOTE)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a machine or a job that a user should know.

    Args:
        name: of what was found, always the same words.
        level: `error` would stop a job, `warning` makes it slow or fail later, `note` is good to know.
        says: what was seen here.
        cure: what to do.
    """

    name: str
    level: str
    says: str
    cure: str

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ValueError(f"level {self.level!r} is none of {', '.join(LEVELS)}")


def merge_nodes(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Yield one of the findings of all nodes that have the same name and cure, and say how many more there are."""
    alike: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        alike.setdefault((finding.name, finding.cure), []).append(finding)
    for first, *others in alike.values():
        more = f" (and likewise on {len(others)} more node{'s' if len(others) > 1 else ''})" if others else ""
        yield replace(first, says=first.says + more)
