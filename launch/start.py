"""Starting the ranks of a job on this machine, and learning how it really ended."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sparsecomm.errors import InputError

RESULT: Final = "SPARSECOMM_RESULT"

# Ranks share cores here: they must give way while they wait, and not bring a thread pool each.
ENVIRONMENT: Final = {
    "MPIR_CVAR_CH4_PROGRESS_THROTTLE": "1",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
}


def start_ranks(num_ranks: int, argv: Sequence[str]) -> int:
    """Run `sparsecomm argv` on `num_ranks` processes of this machine and return the exit code of the command.

    The command leaves its own exit code in a file: what mpiexec returns differs from one MPI to the next, and is 0
    with some when a rank vanished.

    Raises:
        InputError: there is no mpiexec.
    """
    with tempfile.TemporaryDirectory(prefix="sparsecomm-") as folder:
        result = Path(folder, "exit-code")
        environ = {**ENVIRONMENT, **os.environ, RESULT: str(result)}
        command = [find_mpiexec(), "-n", str(num_ranks), sys.executable, "-m", "sparsecomm", *argv]
        code = _run(command, environ)
        if result.exists():
            return int(result.read_text())
    if code == 0:
        print("sparsecomm: error: the job ended before its work was done", file=sys.stderr)
    return code if code > 1 else 1


def _run(command: list[str], environ: dict[str, str]) -> int:
    process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL)
    try:
        return process.wait()
    except BaseException:
        process.terminate()  # mpiexec takes its ranks with it
        process.wait()
        raise


def report_code(code: int) -> None:
    """Leave the exit code of the command for the process that started this job, if one did."""
    path = os.environ.get(RESULT)
    if path:
        beside = Path(f"{path}.new")
        beside.write_text(str(code))
        beside.rename(path)


def find_mpiexec() -> str:
    """Return the mpiexec beside this Python, or else the one on the path.

    Raises:
        InputError: there is none.
    """
    beside = Path(sys.executable).parent / "mpiexec"
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None:
        raise InputError(
            "no mpiexec found to start ranks with; install one with: pip install 'sparsecomm[mpi]', "
            "or run all ranks as threads of this process with --transport local"
        )
    return found
