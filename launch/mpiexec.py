"""An mpiexec and the MPI library that it belongs to."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

# What each says when asked for its version, and in MPI's own words about itself.
_SAYS: Final = {
    "Open MPI": r"\bOpen ?(?:MPI|RTE)\b|\bPRRTE\b|\bprte\b",
    "Intel MPI": r"\bIntel\(R\) MPI\b",
    "MVAPICH": r"\bMVAPICH",
    "Cray PALS": r"\bPALS\b",
    "Cray MPICH": r"\bCRAY MPICH\b",
    "MPICH": r"\bHYDRA\b|\bMPICH\b",
}
_VERSION: Final = r"(?<![\w.])(\d+(?:\.\d+)+(?:rc\d+|[ab]\d+)?)"
# Libraries that one launcher starts as well as the other.
_HYDRA: Final = {"MPICH", "Intel MPI", "MVAPICH", "Cray MPICH", "Cray PALS"}
# What a launcher has told this process, and would tell the next mpiexec that it is a rank of a job.
_OF_A_JOB: Final = ("PMI_", "PMIX_", "OMPI_", "PRTE_", "MPI_LOCAL", "HYDI_", "HYDRA_")


@dataclass(frozen=True, slots=True)
class Mpiexec:
    """A launcher.

    Args:
        path: of the program.
        family: `MPICH`, `Open MPI`, ..., or empty where it does not say.
        version: or empty.
    """

    path: str
    family: str
    version: str

    def __str__(self) -> str:
        return f"{self.path} ({self.family or 'of an unknown MPI'}{' ' if self.version else ''}{self.version})"


def ask_mpiexec(path: str) -> Mpiexec:
    """Ask an mpiexec what it is. Call it before MPI is started: it runs a program."""
    try:
        run = subprocess.run(
            [path, "--version"],
            capture_output=True,
            text=True,
            timeout=20,
            stdin=subprocess.DEVNULL,
            env=without_job(os.environ),
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return Mpiexec(path, "", "")
    return Mpiexec(path, *parse_library(run.stdout + run.stderr))


def without_job(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without what a launcher has told this process about its place."""
    return {name: value for name, value in environ.items() if not name.startswith(_OF_A_JOB)}


def parse_library(text: str) -> tuple[str, str]:
    """Return family and version of what an mpiexec or an MPI library says about itself."""
    family = next((name for name, pattern in _SAYS.items() if re.search(pattern, text, re.IGNORECASE)), "")
    version = re.search(_VERSION, text)
    return family, version[1] if version else ""


def fits(launcher: str, library: str) -> bool:
    """Say whether a launcher of one family starts jobs of another; unknown ones get the benefit of the doubt."""
    return not launcher or not library or launcher == library or {launcher, library} <= _HYDRA
