"""One rank goes wrong: the job ends soon, with an exit code that is not 0, and names that rank and no other."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.jobs import BIN, ENVIRONMENT, ROOT, TIMED_OUT, Job, mpiexec, run, run_job, segments_of

DEADLINE_S = 3
START = "import sys; from sparsecomm.launch.start import start_ranks; sys.exit(start_ranks(4, sys.argv[1:]))"
NAMED = {
    "raise": "",
    "exit": "came to the end of its program while others wait",
    "vanish": "left with exit code 0 in the middle of the job",
    "kill": r"killed by signal 9 \(SIGKILL\)",
    "stop": "nothing was heard; stopped, or busy with something else",
}
SILENT = ("stop", "diverge")  # found by nothing but a deadline; all others are in a hurry only where one is slow
# Where no process of ours stands above a rank, MPI itself must notice that it is gone.
BARE = ("raise", "exit", "stop")


def assert_swept(job: Job) -> None:
    segments = re.findall(r"/dev/shm/\S+", job.stdout)
    assert "running" in job.stdout, job
    assert not [path for path in segments if Path(path).exists()], job


def started_by_us(mpi: str, *words: str) -> Job:
    mpiexec(mpi)
    python = str(BIN[mpi] / "python")
    return run([python, "-c", START, python, "-m", "tests.faulty", *words], timeout=200, env=deadline(words[1]))


def deadline(how: str) -> dict[str, str]:
    return {"SPARSECOMM_DEADLINE": str(DEADLINE_S if how in SILENT else 150)}


def blamed(job: Job) -> set[str]:
    return set(re.findall(r"at fault: (rank \d+ on host [^:\s]+)", job.stderr))


@pytest.mark.parametrize(
    ("how", "mpi"), [*((how, "mpich") for how in NAMED), *((how, "openmpi") for how in ("raise", "kill", "stop"))]
)
def test_fault_under_our_launcher(how: str, mpi: str) -> None:
    job = started_by_us(mpi, "2", how, "0.2")
    assert job.rc not in (0, TIMED_OUT), job
    assert len(blamed(job)) == 1, job
    assert re.search(rf"at fault: rank 2 on host [^:]+: ?{NAMED[how]}", job.stderr), job
    assert job.rc == 86 or how not in ("exit", "stop"), job
    assert_swept(job)


@pytest.mark.parametrize(("how", "mpi"), [*((how, "mpich") for how in BARE), ("exit", "openmpi")])
def test_fault_under_a_bare_mpiexec(how: str, mpi: str) -> None:
    argv = ["python", "-m", "tests.faulty", "1", how]
    job = run_job(3, argv, mpi=mpi, timeout=200, env=deadline(how))
    assert job.rc not in (0, TIMED_OUT), job
    assert re.search(rf"at fault: rank 1 on host [^:]+: ?{NAMED[how]}", job.stderr), job


def test_ranks_in_different_calls_are_told_apart() -> None:
    job = run_job(3, ["python", "-m", "tests.faulty", "1", "diverge"], env=deadline("diverge"))
    assert job.rc == 86, job
    assert re.search(r"a deadline of 3 s has passed: 3 of 3 ranks report", job.stderr), job
    assert re.search(r"at fault: all ranks wait, in different calls: rank 1 in a barrier; ranks 0, 2 in", job.stderr), (
        job
    )
    assert re.search(r"rank 0 on host \S+ has waited \d+\.\d s in stage \d of \d of a run forwards of plan", job.stderr)


def test_a_job_without_faults_is_left_alone() -> None:
    job = started_by_us("mpich", "0", "none", "1")
    assert job.rc == 0, job
    assert not blamed(job), job
    assert_swept(job)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_one_rank_makes_all_leave_together(number: int, tmp_path: Path) -> None:
    launcher = mpiexec()
    python = str(launcher.parent / "python")
    command = [str(launcher), "-n", "3", python, "-m", "sparsecomm", "spmm", "rmat:10", "--repeat", "1000000"]
    with open(tmp_path / "stderr", "w+b") as stderr:
        process = subprocess.Popen(command, env={**os.environ, **ENVIRONMENT}, stdout=stderr, stderr=stderr, cwd=ROOT)
        try:
            until_they_multiply(tmp_path / "stderr", process)
            os.kill(one_rank(process.pid), number)
            assert process.wait(200) == 1
        finally:
            process.kill()
        stderr.seek(0)
        text = stderr.read().decode()
    assert f"stopped by {signal.Signals(number).name}; all ranks left together" in text, text
    assert "Traceback" not in text


def until_they_multiply(said: Path, process: subprocess.Popen[bytes]) -> None:
    """Return when a job tells how many products it has done."""
    until = time.monotonic() + 200
    while "sparsecomm: product " not in said.read_text():
        assert process.poll() is None, said.read_text()
        assert time.monotonic() < until, said.read_text()
        time.sleep(0.05)


def one_rank(launcher: int) -> int:
    """Return the process number of a rank of a job that multiplies."""
    family = psutil.Process(launcher).children(recursive=True)
    return next(one.pid for one in family if "mpich_shm" in Path(f"/proc/{one.pid}/maps").read_text())


def test_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sparsecomm", "spmm", "rmat:10", "-n", "3", "--repeat", "1000000"]
    with open(tmp_path / "out", "wb") as out:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, start_new_session=True)
        until_they_multiply(tmp_path / "out", process)
        segments = segments_of(one_rank(process.pid))
        family = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(200) != 0
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive
    assert segments
    assert not [path for path in segments if Path(path).exists()]
