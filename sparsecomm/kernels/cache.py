"""What kernels know of this processor, and where they keep what they measured on it."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path
from typing import Final

_CACHES: Final = Path("/sys/devices/system/cpu/cpu0/cache")


def cache_folder() -> Path:
    """Return where it is kept: `$XDG_CACHE_HOME/sparsecomm/kernels`, or under `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "sparsecomm", "kernels")


@cache
def processor() -> str:
    """Return the name of this processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


@cache
def caches() -> tuple[tuple[str, int], ...]:
    """Return name and bytes of the caches of a core, inner to outer."""
    found = []
    for folder in sorted(_CACHES.glob("index*")):
        try:
            kind, level = (folder / "type").read_text().strip(), (folder / "level").read_text().strip()
            size = (folder / "size").read_text().strip()
        except OSError:
            continue
        if kind != "Instruction":
            found.append((f"L{level}", int(size.rstrip("KMG")) << {"K": 10, "M": 20, "G": 30}.get(size[-1], 0)))
    return tuple(found) or (("L1", 1 << 15), ("L2", 1 << 20), ("L3", 1 << 25))
