"""Joining the job through a child process, so that there is a page to print also where MPI ends its process."""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from sparsecomm.launch.doctor.facts import Facts, Process, World
from sparsecomm.launch.doctor.member import JOINED, LIBRARY, PROCESS
from sparsecomm.launch.mpiexec import parse_library

# Python, mpi4py and MPI on thousands of ranks from one slow file system take tens of seconds.
DEADLINE_S: Final = 120.0
_MOST_OUTPUT: Final = 2000
# What mpi4py says when it finds no library to load.
_NOT_LOADED: Final = ("cannot load MPI library", "cannot open shared object file", "undefined symbol")


def join(process: Process, deadline_s: float = DEADLINE_S) -> Facts:
    """Return the facts of the job on rank 0, and on other ranks, or where MPI does not start, those of this process.

    Note: Collective over the world.
    """
    with tempfile.TemporaryDirectory(prefix="sparsecomm-") as name:
        folder = Path(name)
        (folder / PROCESS).write_bytes(pickle.dumps(process))
        code, output = _run(folder, deadline_s)
        library = (folder / LIBRARY).read_text() if (folder / LIBRARY).exists() else ""
        if (folder / JOINED).exists():
            size, processes, nodes = pickle.loads((folder / JOINED).read_bytes())
            return Facts(tuple(processes), tuple(nodes), make_world(library, size, "", output))
        error = why_not(code, output, deadline_s) if code != 0 else ""
        return Facts((process,), (0,), make_world(library, None, error, output))


def make_world(library: str, size: int | None, error: str, output: str) -> World:
    """Return what MPI is here, from what it says about itself."""
    first_line = " ".join(library.replace("\0", "").strip().partition("\n")[0].split())
    return World(first_line, *parse_library(library), size, error, output)


def why_not(code: int | None, output: str, deadline_s: float) -> str:
    """Return in a line why the child did not join; None as code is a child that had to be ended."""
    if code is None:
        return f"MPI did not start within {deadline_s:g} s"
    lines = [line.strip() for line in output.splitlines() if line.strip(" -=*\n")]
    telling = [line for line in lines if any(words in line for words in _NOT_LOADED)]
    return (telling or lines or [f"the process that started MPI ended with code {code}"])[-1]


def _run(folder: Path, deadline_s: float) -> tuple[int | None, str]:
    """Run the child and return its code and output; the file descriptors of the launcher must reach it."""
    command = [sys.executable, "-m", "sparsecomm.launch.doctor.member", str(folder)]
    with (folder / "output").open("w+b") as output:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, close_fds=False
        )
        try:
            code = child.wait(deadline_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
        return code, (folder / "output").read_text(errors="replace")[-_MOST_OUTPUT:].strip()
