"""Whether MPI can send GPU memory: tried in a job of its own, because no MPI answers reliably and some crash."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from sparsecomm.launch.doctor.facts import Facts, Probe
from sparsecomm.launch.doctor.gpu_exchange import NO_GPU, WORKS
from sparsecomm.launch.mpiexec import fits, without_job
from sparsecomm.launch.start import ENVIRONMENT

DEADLINE_S: Final = 60.0


def probe_gpu_mpi(facts: Facts) -> Probe:
    """Start two ranks on this node and let one send GPU memory to the other.

    They share a GPU where there is one: what is asked is whether MPI can read and write the memory of a GPU.
    """
    software = facts.first.software
    if not facts.first.gpus.seen:
        return Probe("impossible", "this process sees no GPU")
    if not software.version("mpi4py") or not facts.world.library:
        return Probe("impossible", "there is no MPI")
    if software.mpiexec is None or not fits(software.mpiexec.family, facts.world.family):
        return Probe("impossible", "there is no mpiexec of this MPI library here that could start two ranks")
    return run_exchange(software.mpiexec.path, child_environment(os.environ))


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for a job on this node alone: without the place in this job or an allocation's nodes."""
    kept = {name: value for name, value in without_job(environ).items() if not name.startswith("SLURM_")}
    return {**ENVIRONMENT, **kept, "HYDRA_LAUNCHER": "fork"}


def run_exchange(mpiexec: str, environ: Mapping[str, str], deadline_s: float = DEADLINE_S) -> Probe:
    """Run the exchange and judge by what it leaves: it may crash."""
    with tempfile.TemporaryDirectory(prefix="sparsecomm-") as folder:
        verdict, output = Path(folder, "verdict"), Path(folder, "output")
        command = [mpiexec, "-n", "2", sys.executable, "-m", "sparsecomm.launch.doctor.gpu_exchange", str(verdict)]
        with output.open("wb") as file:
            job = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=dict(environ)
            )
            ended = _wait(job, deadline_s)
        lines = [line.strip() for line in output.read_text(errors="replace").splitlines() if line.strip(" -=*\n")]
        return judge(verdict.read_text() if verdict.exists() else "", job.returncode if ended else None, lines)


def judge(verdict: str, code: int | None, lines: list[str]) -> Probe:
    """Return what the exchange shows, from what rank 1 wrote, mpiexec's code (None: it hung) and what was printed."""
    if verdict == WORKS and code == 0:
        return Probe("works", "8 B, 64 KiB and 16 MiB went from GPU memory to GPU memory and were compared")
    if verdict.startswith(NO_GPU):
        return Probe("impossible", verdict)
    if verdict and verdict != WORKS:
        return Probe("fails", verdict)
    if code is None:
        return Probe("fails", "the exchange did not end")
    return Probe("fails", f"the job that tried ended with code {code}" + (f": {lines[0]}" if lines else ""))


def _wait(job: subprocess.Popen[bytes], deadline_s: float) -> bool:
    try:
        job.wait(deadline_s)
    except subprocess.TimeoutExpired:
        return False
    finally:
        if job.poll() is None:
            job.terminate()  # mpiexec takes its ranks with it
            job.wait()
    return True
