"""The memory of this process against a limit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sparsecomm.errors import InputError

_UNITS: Final = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}

# Left over for small things: tables of images, messages, the interpreter.
_RESERVE: Final = 24 << 20


def parse_bytes(text: str) -> int:
    """Return the bytes that `800M` or `1.5G` stands for, in powers of 1024.

    Raises:
        InputError: it is no such number.
    """
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)([KMGT]?)", text.strip().upper())
    if match is None or float(match[1]) == 0:
        raise InputError(f"memory {text!r} is not a number of bytes; give for example 800M or 1.5G")
    return int(float(match[1]) * (1 << _UNITS[match[2]]))


def resident_bytes() -> int:
    """Return the physical memory that this process uses now."""
    return _status("VmRSS")


def peak_bytes() -> int:
    """Return the most physical memory that this process has used."""
    return _status("VmHWM")


def _status(field: str) -> int:
    text = Path("/proc/self/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) << 10 if found else 0


@dataclass(frozen=True, slots=True)
class Budget:
    """What a rank may still use.

    Args:
        limit: bytes of the process, or None.
        sharers: ranks in the process.
    """

    limit: int | None
    sharers: int = 1

    def left(self) -> int | None:
        """Return the bytes left to this rank, None without a limit."""
        if self.limit is None:
            return None
        return max(0, (self.limit - resident_bytes() - _RESERVE) // self.sharers)
