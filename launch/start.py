"""Starting the ranks of a job on this machine, and learning how it really ended."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sparsecomm.errors import InputError

RESULT: Final = "SPARSECOMM_RESULT"

_GRACE_S: Final = 5.0

# Ranks share cores here: they must give way while they wait, and not bring a thread pool each.
ENVIRONMENT: Final = {
    "MPIR_CVAR_CH4_PROGRESS_THROTTLE": "1",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMPI_MCA_osc": "^ucx",  # which Open MPI 5.0.11 asks for every window, and which complains each time
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
}


def start_ranks(num_ranks: int, command: Sequence[str]) -> int:
    """Run a command on `num_ranks` processes of this machine and return its exit code.

    What mpiexec returns differs from one MPI to the next, and is 0 with some when a rank vanished: `sparsecomm` leaves
    its exit code in a file, and each rank has a process of ours above it.

    Raises:
        InputError: there is no mpiexec.
    """
    with tempfile.TemporaryDirectory(prefix="sparsecomm-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        environ = {**ENVIRONMENT, **os.environ, RESULT: str(folder / "exit-code")}
        try:
            code = _run([find_mpiexec(), "-n", str(num_ranks), *rank_command(folder), *command], environ)
        finally:
            _sweep(folder)
            say_faults(folder)
        if (folder / "exit-code").exists():
            return int((folder / "exit-code").read_text())
        unfinished = [rank for rank in range(num_ranks) if _code_of(folder / str(rank)) != 0]
    if code == 0 and unfinished:
        print(f"sparsecomm: error: ranks {unfinished} ended before their work was done", file=sys.stderr)
    return code or int(bool(unfinished))


def rank_command(folder: Path) -> list[str]:
    """Return what, put before the command of a rank, sees how it ends and leaves that in the folder of the job."""
    return [sys.executable, "-m", "sparsecomm.launch.rank", str(folder)]


def say_faults(folder: Path) -> None:
    """Print which ranks of a job ended badly by themselves, the first to end first."""
    for fault in sorted(folder.glob("*.fault"), key=lambda path: path.stat().st_mtime_ns):
        print(f"sparsecomm: at fault: {fault.read_text()}", file=sys.stderr)


def _run(command: list[str], environ: dict[str, str]) -> int:
    process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL)
    try:
        return process.wait()
    except BaseException:
        _end(process)
        raise


def _end(process: subprocess.Popen[bytes]) -> None:
    """End mpiexec, which takes its ranks with it."""
    process.terminate()
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _code_of(path: Path) -> int:
    """Return the exit code that a rank left; 1 if it could leave none."""
    return int(path.read_text()) if path.exists() else 1


def _sweep(folder: Path) -> None:
    """Remove the shared memory that the ranks of a job left behind, and the siblings made after they had told."""
    paths = {line for joined in folder.glob("*.joined") for line in joined.read_text().splitlines()}
    for stem in {re.sub(r"_\d+$", "", path) for path in paths}:
        for left in [Path(stem), *Path(stem).parent.glob(f"{Path(stem).name}_*")]:
            left.unlink(missing_ok=True)


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
