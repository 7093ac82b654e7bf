"""The NCCL libraries of this machine, without CUDA."""

from __future__ import annotations

import ctypes
import ctypes.util
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

_WHEELS: Final = ("nvidia-nccl-cu12", "nvidia-nccl-cu13")
_LIBRARY: Final = "libnccl.so.2"


@dataclass(frozen=True, slots=True)
class Nccl:
    """A NCCL library.

    Args:
        path: of the file, or the name under which the loader finds it.
        version: or empty where it cannot be loaded.
    """

    path: str
    version: str


def find_nccl() -> tuple[Nccl, ...]:
    """Return the libraries in the order in which CuPy looks: wheels of this environment, then the loader's path."""
    paths = [*_in_wheels(), *([_LIBRARY] if ctypes.util.find_library("nccl") or _loads(_LIBRARY) else [])]
    return tuple(Nccl(path, _ask(path)) for path in paths)


def _in_wheels() -> list[str]:
    found = []
    for name in _WHEELS:
        try:
            files = metadata.files(name) or []
        except metadata.PackageNotFoundError:
            continue
        found += [str(Path(str(file.locate()))) for file in files if file.name == _LIBRARY]
    return found


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _ask(path: str) -> str:
    """Return the version that the library itself gives; it needs no GPU for that."""
    number = ctypes.c_int()
    try:
        failed = ctypes.CDLL(path).ncclGetVersion(ctypes.byref(number))
    except (OSError, AttributeError):
        return ""
    return "" if failed else version_text(number.value)


def version_text(number: int) -> str:
    """Return a version as NCCL counts it, 10000 major + 100 minor + patch (before 2.9 1000 major), with dots."""
    major, rest = divmod(number, 10000 if number >= 10000 else 1000)
    return f"{major}.{rest // 100}.{rest % 100}"
