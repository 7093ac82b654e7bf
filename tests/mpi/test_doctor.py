"""`sparsecomm doctor` in real jobs: whole ones, ones that fell apart, and a probe against an invented driver."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sparsecomm.launch.doctor.probe import child_environment, run_exchange
from tests.jobs import BIN, Job, mpiexec, run, run_job

VENDOR = {"mpich": "MPICH", "openmpi": "Open MPI"}
# What a driver of GPUs whose memory is host memory would be; with FAKE_CUDA_HIDES the host cannot touch it.
DRIVER = """
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
static char *hidden, *shown;
int cuInit(unsigned flags) { return getenv("FAKE_CUDA_FAILS") ? 100 : 0; }
int cuDeviceGet(int *device, int number) { *device = number; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = &hidden; return 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { return 0; }
int cuCtxSetCurrent(void *context) { return 0; }
int cuCtxSynchronize(void) { return 0; }
int cuMemAlloc_v2(uint64_t *pointer, size_t size) {
    hidden = malloc(size);
    shown = getenv("FAKE_CUDA_HIDES") ? mmap(0, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) : hidden;
    *pointer = (uint64_t)shown;
    return 0;
}
int cuMemFree_v2(uint64_t pointer) { free(hidden); return 0; }
int cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t size) { memcpy(hidden, from, size); return 0; }
int cuMemcpyDtoH_v2(void *to, uint64_t from, size_t size) {
    memcpy(to, hidden, size);
    if (getenv("FAKE_CUDA_LIES")) *(char *)to ^= 1;
    return 0;
}
"""


def report(job: Job) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(job.stdout)
    return found


def finding_names(job: Job) -> list[str]:
    return [finding["name"] for finding in report(job)["findings"]]


@pytest.mark.parametrize("mpi", VENDOR)
def test_whole_job(mpi: str) -> None:
    job = run_job(2, ["sparsecomm", "doctor", "--json"], mpi=mpi, timeout=200)
    found = report(job)
    assert job.rc == found["exit_code"] == 0, job
    assert found["schema"] == "sparsecomm.doctor/1"
    assert (found["ranks"], found["gathered"]) == (2, True)
    assert found["mpi"]["family"] == VENDOR[mpi]
    assert found["nodes"] == [{"host": os.uname().nodename, "ranks": [0, 1]}]
    assert [one["place"]["rank"] for one in found["processes"]] == [0, 1]


def test_page_is_printed_once() -> None:
    job = run_job(3, ["sparsecomm", "doctor"], timeout=200)
    assert job.rc == 0, job
    assert job.stdout.count("findings\n") == 1, job
    assert job.stdout.count("launcher  ") == 1, job
    assert job.stderr == "", job


def test_what_differs_is_gathered() -> None:
    """Rank 1 is bound to one processor and has another thread count: one page says both."""
    code = (
        "import os, sys; rank = os.environ['PMI_RANK']; os.environ['OMP_NUM_THREADS'] = rank;"
        "os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1] if rank == '1' else os.sched_getaffinity(0));"
        "from sparsecomm.launch.cli import main; sys.exit(main(['doctor', '--json']))"
    )
    job = run_job(2, ["python", "-c", code], timeout=200)
    ranks = report(job)["processes"]
    assert [one["variables"]["OMP_NUM_THREADS"] for one in ranks] == ["0", "1"]
    assert len(ranks[1]["cpus"]["allowed"]) == 1


@pytest.mark.parametrize(("launcher", "library"), [("openmpi", "mpich"), ("mpich", "openmpi")])
def test_launcher_of_another_mpi(launcher: str, library: str) -> None:
    mpiexec(library)
    command = [str(mpiexec(launcher)), "-n", "2", str(BIN[library] / "sparsecomm"), "doctor"]
    job = run(command, timeout=200, env={"TERM": "dumb"})  # mpirun of Open MPI gives rank 0 a terminal
    assert job.rc == 1, job
    assert job.stdout.count("findings\n") == 1, job
    said = " ".join(job.stdout.split())
    assert "error: foreign launcher:" in said, job
    assert f"{VENDOR[library]} 5" in said, job
    assert "started 2 processes" in said, job
    assert f"{BIN[library]}/mpiexec -n 2 sparsecomm doctor" in said, job


@pytest.mark.parametrize("rank", ["0", "1"])
def test_job_in_pieces_is_printed_by_the_launchers_first_rank(rank: str) -> None:
    place = {"WORLD_SIZE": "2", "RANK": rank, "LOCAL_RANK": rank}
    job = run([str(BIN["mpich"] / "sparsecomm"), "doctor", "--json"], timeout=200, env=place)
    if rank == "1":
        assert (job.rc, job.stdout) == (0, ""), job
    else:
        assert job.rc == 1, job
        assert finding_names(job)[0] == "job in pieces"


def test_without_a_launcher_and_without_mpi(tmp_path: Path) -> None:
    assert run([str(BIN["mpich"] / "sparsecomm"), "doctor"], timeout=200).rc == 0
    (tmp_path / "mpi4py.py").write_text("raise ImportError('No module named mpi4py')\n")
    code = (
        "import sys; import sparsecomm.launch.doctor.software as s; s.PACKAGES = ('numpy',);"
        "from sparsecomm.launch.cli import main; sys.exit(main(['doctor', '--json']))"
    )
    job = run([sys.executable, "-c", code], timeout=200, env={"PYTHONPATH": str(tmp_path)})
    assert (job.rc, finding_names(job)[0]) == (0, "no mpi4py"), job


def test_mpi_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from sparsecomm.launch.doctor.facts import find_process
    from sparsecomm.launch.doctor.joining import join

    (tmp_path / "mpi4py.py").write_text("import time; time.sleep(1000)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = join(find_process({}), deadline_s=2.0)
    assert found.world.error == "MPI did not start within 2 s"
    assert found.world.size is None


def test_bad_usage_is_2() -> None:
    assert run([str(BIN["mpich"] / "sparsecomm"), "doctor", "--no-such-option"], timeout=200).rc == 2


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler for the driver of this test")
    folder = tmp_path_factory.mktemp("driver")
    (folder / "driver.c").write_text(DRIVER)
    command = [compiler, "-shared", "-fPIC", "-o", str(folder / "libcuda.so.1"), str(folder / "driver.c")]
    subprocess.run(command, check=True, timeout=200)
    return folder


@pytest.mark.parametrize(
    ("variables", "state", "words"),
    [
        ({}, "works", "were compared"),
        ({"FAKE_CUDA_HIDES": "1"}, "fails", ""),
        ({"FAKE_CUDA_LIES": "1"}, "fails", "8 bytes arrive wrong"),
        ({"FAKE_CUDA_FAILS": "1"}, "impossible", "refuses cuInit with code 100"),
    ],
    ids=["works", "crashes", "wrong", "no gpu"],
)
def test_probe(driver: Path, variables: dict[str, str], state: str, words: str) -> None:
    environ = {**child_environment(os.environ), "LD_LIBRARY_PATH": str(driver), **variables}
    found = run_exchange(str(mpiexec()), environ, deadline_s=200)
    assert (found.state, words in found.detail) == (state, True), found
