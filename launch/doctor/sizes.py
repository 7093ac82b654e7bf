"""Sizes as people read them."""

from __future__ import annotations

from typing import Final

MIB: Final = 1 << 20


def size_text(num_bytes: int) -> str:
    """Return a size in the unit that fits, to three digits."""
    for unit, one in (("GiB", 1 << 30), ("MiB", MIB)):
        if num_bytes >= one:
            return f"{num_bytes / one:.3g} {unit}"
    return f"{num_bytes // 1024} KiB"
