"""Ranges for NVIDIA's profilers, named after what is recorded: products, runs of exchanges, and waits for them."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from sparsecomm.errors import InputError
from sparsecomm.profile import Ranges

VARIABLE: Final = "SPARSECOMM_NVTX"
_DOMAIN: Final = "sparsecomm"


class NvtxRanges:
    """Ranges that Nsight shows on the line of this thread's process; they may overlap.

    Source: NVTX, start and end of a process range.
    """

    def __init__(self, nvtx: Any) -> None:
        self._nvtx = nvtx

    def begin(self, name: str) -> object:
        return self._nvtx.start_range(message=name, domain=_DOMAIN)

    def end(self, handle: object) -> None:
        self._nvtx.end_range(handle)


def nvtx_ranges() -> Ranges:
    """Return ranges by the package nvtx; where no profiler is attached they cost next to nothing.

    Raises:
        InputError: with the command that installs it.
    """
    try:
        return NvtxRanges(import_module("nvtx"))
    except ImportError as err:
        raise InputError("NVTX ranges need the package nvtx; install it with: pip install nvtx") from err
