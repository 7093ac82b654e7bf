"""Limits of the control groups that this process is in, version 1 or 2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

SYS: Final = Path("/sys")
PROC: Final = Path("/proc")

# Version 1 has no word for "no limit" in memory: it says the largest number of pages.
_NO_LIMIT: Final = 1 << 60


def find_memory_limit(sys: Path = SYS, proc: Path = PROC) -> int | None:
    """Return the smallest memory limit, in bytes, of the process's groups and those around them, or None."""
    texts = [
        *read_groups("", "memory.max", sys, proc),
        *read_groups("memory", "memory.limit_in_bytes", sys, proc),
    ]
    limits = [int(text) for text in texts if text.isdecimal()]
    return min((limit for limit in limits if limit < _NO_LIMIT), default=None)


def find_cpu_quota(sys: Path = SYS, proc: Path = PROC) -> float | None:
    """Return the processors' worth of time that the process's groups grant, or None where they do not limit it."""
    pairs = [text.partition(" ")[::2] for text in read_groups("", "cpu.max", sys, proc)]
    limits = read_groups("cpu", "cpu.cfs_quota_us", sys, proc)
    pairs += zip(limits, read_groups("cpu", "cpu.cfs_period_us", sys, proc), strict=False)
    quotas = [int(limit) / int(period) for limit, period in pairs if limit.isdecimal() and period.isdecimal()]
    return min(quotas, default=None)


def read_groups(controller: str, name: str, sys: Path = SYS, proc: Path = PROC) -> Iterator[str]:
    """Yield what file `name` says in the process's group and in all around it; an empty controller is version 2.

    In a container the root that is mounted is the process's own group, and the path is not found below it.
    """
    group = _group(controller, proc)
    if group is None:
        return
    for mount in (sys / "fs/cgroup" / folder for folder in ([controller] if controller else ["", "unified"])):
        for folder in dict.fromkeys([mount / group, *(mount / group).parents]):
            if folder.is_relative_to(mount) and (text := _read(folder / name)):
                yield text


def _group(controller: str, proc: Path) -> str | None:
    """Return the path of the process's group below the mount, without the leading slash."""
    for line in _read(proc / "self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(","):
            return path.lstrip("/").replace("../", "")
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
