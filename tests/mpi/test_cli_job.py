"""`sparsecomm spmm` in jobs: one JSON object, one error line, and all ranks leave together."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparsecomm.apps.report.case import load_case
from sparsecomm.io.matrix import read_matrix
from tests.cli import sparsecomm, without_progress
from tests.jobs import BIN, Job, mpiexec, run, run_job

MPIS = ["mpich", "openmpi"]
MTX = "%%MatrixMarket matrix coordinate real general\n"
MATRIX, MACHINE = "rmat:8:4", "nodes:1,1"
# Sockets are no level that the job could find by itself.
PROGRAM = """
from mpi4py import MPI
import numpy as np
import sparsecomm
A = sparsecomm.read_matrix("rmat:8:4", dtype=np.float32)
topology, comm = sparsecomm.Topology.parse("socketed.toml"), MPI.COMM_WORLD
layouts = sparsecomm.partition_rows(A, topology, "block")
own = layouts.rows.own_rows(comm.rank)
rows = A[own.start : own.stop]
with sparsecomm.DistMatrix.from_rows(rows, layouts, topology, comm, strategy="direct") as matrix:
    for _ in range(3):
        matrix @ np.ones((len(own), 4), dtype=np.float32)
"""
LEVEL = '\n[[levels]]\nname = "{}"\nlatency_s = 1e-6\nbandwidth_Bps = 1e9\n'
QUICK = ["--repeat", "1", "-k", "3", "--json"]


def spmm(*argv: object, mpi: str) -> Job:
    """Run `sparsecomm spmm -n 2 argv`, which starts the job itself."""
    mpiexec(mpi)
    command = [BIN[mpi] / "python", "-m", "sparsecomm", "spmm", "-n", 2, *argv]
    return run([str(word) for word in command], timeout=200)


def test_started_by_the_command(tmp_path: Path) -> None:
    assert sparsecomm("plan", MATRIX, "-t", MACHINE, "-s", "hierarchical", "-o", tmp_path / "plan").rc == 0
    job = spmm(MATRIX, "--plan", tmp_path / "plan", "--check", "--transpose", *QUICK, mpi="mpich")
    assert (job.rc, without_progress(job.stderr)) == (0, ""), job
    report = json.loads(job.stdout)
    assert (report["ranks"], report["chosen"], report["verified"]) == (2, "hierarchical", True)
    for noun in ("rows", "bytes", "messages"):
        assert report["executed"][noun] == report["strategies"]["hierarchical"][noun]


def test_started_by_mpiexec() -> None:
    job = run_job(3, ["sparsecomm", "spmm", MATRIX, "-p", "metis", "--check", *QUICK], mpi="openmpi", timeout=200)
    assert job.rc == 0, job
    report = json.loads(job.stdout)
    assert (report["ranks"], report["partition"]["method"], report["verified"]) == (3, "metis", True)


def test_a_program_is_recorded_by_a_variable(tmp_path: Path) -> None:
    (tmp_path / "socketed.toml").write_text(
        "tree = [[1, 1]]" + "".join(map(LEVEL.format, ("socket", "node", "network")))
    )
    job = run_job(2, ["python", "-c", PROGRAM], env={"SPARSECOMM_PROFILE": "run"}, cwd=tmp_path)
    assert (job.rc, job.stdout, job.stderr) == (0, "", ""), job
    case, matrix = load_case(tmp_path / "run"), read_matrix(MATRIX)
    assert (case.whole, case.times, case.topology.num_levels) == (True, 3, 3)
    half = matrix.shape[0] // 2
    ghosts = [matrix[:half, half:], matrix[half:, :half]]
    assert case.traffic.rows.sum() == sum(np.unique(one.nonzero()[1]).size for one in ghosts)


def bad_text(content: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "a.mtx").write_text(content)
        return folder / "a.mtx"

    return write


def pickled(folder: Path) -> Path:
    data = np.array([1.0, {}], dtype=object)
    np.savez(folder / "a.npz", data=data, indices=[0, 1], indptr=[0, 1, 2], shape=(2, 2), format=b"csr")
    return folder / "a.npz"


def cut_short(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-4])
    return path


def damaged(kind: str, array: str) -> Callable[[Path], Path]:
    return lambda folder: cut_short(folder / kind / "rank_000001" / f"{array}.npy").parents[1]


FILES = {
    "missing": (lambda folder: folder / "no.mtx", "no such file|does not exist"),
    "empty": (bad_text(""), "is empty"),
    "truncated": (bad_text(MTX + "3 3 3\n1 1 1.0\n2 2 2.0\n"), "expected 3 lines|promises 3 entries"),
    "10^11 entries": (bad_text(MTX + "9 9 100000000000\n1 1 1\n"), "promises 100000000000 entries"),
    "index 0": (bad_text(MTX + "3 3 1\n0 1 1\n"), "Row index out of bounds"),
    "NaN": (bad_text(MTX + "3 3 1\n2 1 nan\n"), "is nan"),
    "pickles": (pickled, "never unpickled"),
    "shard of rank 1": (damaged("cut", "matrix.data"), "cannot be read"),
}
PLANS = {
    "plan of another matrix": ("rmat:8:5", lambda folder: folder / "plan", "has another structure than rmat:8:5"),
    "shard of rank 1 of the plan": (MATRIX, damaged("plan", "gather.slots"), "cannot be read"),
    "no plan": (MATRIX, lambda folder: folder / "nowhere", "it has no header.json"),
}
OPTIONS = {
    "generator": (["rmat:99"], "SCALE is 99"),
    "width": ([MATRIX, "-k", "0"], "width 0 is not at least 1"),
    "strategy": ([MATRIX, "-s", "fastest"], "give one of auto, direct"),
    "method": ([MATRIX, "-p", "magic"], "unknown partition method"),
    "machine": ([MATRIX, "-t", "uniform:0x2"], "uniform:0x2"),
    "other ranks": ([MATRIX, "-t", "nodes:3"], "has 3 ranks, but 2 are to run"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sound `plan` and a sound `cut` for two ranks."""
    folder = tmp_path_factory.mktemp("made")
    assert sparsecomm("plan", MATRIX, "-t", MACHINE, "-s", "direct", "-o", folder / "plan").rc == 0
    assert sparsecomm("partition", MATRIX, "-t", MACHINE, "-o", folder / "cut").rc == 0
    return folder


def refusals(made: Path, folder: Path) -> list[tuple[list[str], str]]:
    """Return commands that must be refused, and what each refusal must say."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(made, folder / name))

    files = [([str(make(copy(name))), *QUICK], says) for name, (make, says) in FILES.items()]
    plans = [([m, "--plan", str(make(copy(name))), *QUICK], says) for name, (m, make, says) in PLANS.items()]
    return [(["spmm", *argv], says) for argv, says in [*files, *plans, *OPTIONS.values()]]


@pytest.mark.parametrize("mpi", MPIS)
def test_all_ranks_refuse_together(mpi: str, made: Path, tmp_path: Path) -> None:
    """Exit code 2 on every rank, said once, before anything was exchanged; the job can still be used."""
    bad = refusals(made, tmp_path)
    good = ["spmm", MATRIX, "--plan", str(made / "plan"), "--check", *QUICK]
    commands = tmp_path / "commands.json"
    commands.write_text(json.dumps([*(argv for argv, _ in bad), good]))
    job = run_job(2, ["python", "-m", "tests.refusals", str(commands), str(tmp_path)], mpi=mpi, timeout=200)
    assert job.rc == 0, job
    ranks: list[list[dict[str, Any]]] = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    for (argv, says), first, second in zip(bad, *(found[:-1] for found in ranks), strict=True):
        assert (first["rc"], second["rc"]) == (2, 2), (argv, first, second)
        assert (first["stdout"], second["stdout"], second["stderr"]) == ("", "", ""), (argv, first, second)
        assert first["exchanges"] == second["exchanges"] == 0, argv
        assert first["stderr"].count("\n") == 1, first
        assert first["stderr"].startswith("sparsecomm: error: "), first
        assert any(part in first["stderr"] for part in says.split("|")), (argv, first)
    assert [found[-1]["rc"] for found in ranks] == [0, 0], ranks
    assert json.loads(ranks[0][-1]["stdout"])["verified"] is True


@pytest.mark.parametrize(("name", "mpi"), [("NaN", "mpich"), ("shard of rank 1", "openmpi")])
def test_refusal_of_a_started_job(name: str, mpi: str, made: Path, tmp_path: Path) -> None:
    make, says = FILES[name]
    job = spmm(make(Path(shutil.copytree(made, tmp_path / "made"))), *QUICK, mpi=mpi)
    assert (job.rc, job.stdout) == (2, ""), job
    assert job.stderr.count("sparsecomm: error: ") == 1, job
    assert says in job.stderr, job
    assert "Traceback" not in job.stderr, job
