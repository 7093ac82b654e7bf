"""Whether this MPI may be given memory of a GPU: one that does not know such memory crashes on its address."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Final

from mpi4py import MPI

from sparsecomm.errors import InputError

AWARE: Final = "SPARSECOMM_GPU_AWARE_MPI"
_QUESTION: Final = "MPIX_Query_cuda_support"


def gpu_refusal(environ: Mapping[str, str]) -> str:
    """Return why this MPI is given no memory of GPUs; empty where it takes it.

    Args:
        environ: of this process; what `SPARSECOMM_GPU_AWARE_MPI` says is believed.

    Raises:
        InputError: it says neither 0 nor 1.

    Source: the question that Open MPI since 2.0 and MPICH since 4.0 answer once they are initialised, for what was
        built in and is not switched off.
    """
    asked = environ.get(AWARE)
    if asked is None:
        return _answer()
    if asked not in ("0", "1"):
        raise InputError(f"{AWARE} is {asked!r}; give 1 if MPI reads the memory of GPUs, 0 if not, or leave it out")
    return "" if asked == "1" else f"{AWARE} is 0"


def _answer() -> str:
    # The module of mpi4py leads to the very library that it was linked to, and what is loaded for all, else.
    for path in (MPI.__file__, None):
        question = getattr(ctypes.CDLL(path), _QUESTION, None)
        if question is not None:
            return "" if question() == 1 else f"this MPI says that it cannot ({AWARE}=1 if it can)"
    return f"this MPI does not tell whether it can ({AWARE}=1 if it can)"
