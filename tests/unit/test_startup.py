"""`sparsecomm.launch.init()`: place and GPU from fake environments, and real jobs without a GPU."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

import sparsecomm.launch
from sparsecomm.errors import InputError, LaunchError
from sparsecomm.launch import gpu_map, startup
from tests.jobs import run, run_job
from tests.unit.test_place import BATCH, LAUNCHERS, SRUN, TORCHRUN

CUDA = "CUDA_VISIBLE_DEVICES"
EIGHT = {CUDA: "0,1,2,3,4,5,6,7"}


@pytest.fixture(autouse=True)
def _no_gpus_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "count_gpus", lambda: 0)
    monkeypatch.setattr(startup, "visible_variable", lambda: CUDA)
    monkeypatch.setattr(startup, "cuda_is_running", lambda: False)
    monkeypatch.delitem(sys.modules, "mpi4py.MPI", raising=False)


def local(rank: int, **environ: str) -> dict[str, str]:
    return {**SRUN, "SLURM_LOCALID": str(rank), "SLURM_STEP_TASKS_PER_NODE": "8(x2)", **environ}


@pytest.mark.parametrize(("environ", "name"), LAUNCHERS.values(), ids=LAUNCHERS)
def test_every_launcher(environ: dict[str, str], name: str, capsys: pytest.CaptureFixture[str]) -> None:
    environ = {**environ, CUDA: "0,1,2,3"}
    job = startup.init(environ=environ)
    assert name in job.launcher
    assert (job.size, job.rank, job.local_rank, job.local_size, job.gpu) == (8, 5, 1, 4, "1")
    assert environ[CUDA] == "1,0,2,3"
    assert capsys.readouterr().err == ""  # rank 0 speaks


@pytest.mark.parametrize("environ", [{}, BATCH], ids=["plain python", "batch script"])
def test_alone_it_says_one_line(environ: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    job = startup.init(environ=dict(environ))
    assert job == startup.Job("no launcher", 1, 0, 0, 1, None)
    assert capsys.readouterr() == ("", "sparsecomm: no launcher: 1 rank; rank 0 has no GPU\n")


@pytest.mark.parametrize(
    ("value", "expected"),
    [("", None), ("-1", None), ("3", "3"), ("3,2", "3"), ("GPU-ab,GPU-cd", "GPU-ab"), ("2,-1,0", "2"), (" 1 , 0", "1")],
)
def test_visible_devices_are_read_as_cuda_reads_them(value: str, expected: str | None) -> None:
    environ = {CUDA: value}
    assert startup.init(environ=environ).gpu == expected


def test_gpus_without_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "count_gpus", lambda: 4)
    environ = local(2)
    assert startup.init(environ=environ).gpu == "2"
    assert environ[CUDA] == "2,0,1,3"


@pytest.mark.parametrize("local_rank", range(8))
def test_map_of_the_site(local_rank: int) -> None:
    environ = local(local_rank, **EIGHT, SLURM_CLUSTER_NAME="frontier")
    assert startup.init(environ=environ).gpu == "45236701"[local_rank]
    assert sorted(environ[CUDA].split(",")) == sorted("01234567")


def test_map_of_the_site_for_fewer_and_more_ranks() -> None:
    lumi = {**EIGHT, "SLURM_CLUSTER_NAME": "lumi", "SLURM_STEP_TASKS_PER_NODE": "4(x2)"}
    assert [startup.init(environ=local(rank, **lumi)).gpu for rank in range(4)] == ["4", "2", "6", "0"]
    twice = {**local(5, **EIGHT, SLURM_CLUSTER_NAME="lumi"), "SLURM_STEP_TASKS_PER_NODE": "16(x2)"}
    assert startup.init(environ=twice).gpu == "2"  # its cores are in block 2


def test_map_of_polaris() -> None:
    environ = {**TORCHRUN, "PBS_O_HOST": "polaris-login-02.hsn.cm.polaris.alcf.anl.gov", CUDA: "0,1,2,3"}
    assert startup.init(environ=environ).gpu == "2"


def test_site_map_gives_way_to_a_launcher_that_shows_fewer() -> None:
    assert startup.init(environ=local(1, CUDA_VISIBLE_DEVICES="0,1", SLURM_CLUSTER_NAME="frontier")).gpu == "1"
    assert startup.init(environ=local(5, CUDA_VISIBLE_DEVICES="6", SLURM_CLUSTER_NAME="frontier")).gpu == "6"


def test_what_is_given_wins() -> None:
    told = {**EIGHT, "SLURM_CLUSTER_NAME": "frontier", "SPARSECOMM_GPU_MAP": "7 6 5 4 3 2 1 0"}
    assert startup.init(environ=local(1, **told)).gpu == "6"
    assert startup.init(environ=local(1, **told), gpu_map="1,2,3").gpu == "2"
    assert startup.init(environ=local(1, **told), gpu_map=[3, 5]).gpu == "5"
    assert startup.init(environ=local(1, **told), gpu_map=[3, 5], gpu=0).gpu == "0"
    assert startup.init(environ={CUDA: "GPU-a,GPU-b"}, gpu="GPU-b").gpu == "GPU-b"


def test_more_ranks_than_gpus_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    startup.init(environ={**local(0), "SLURM_PROCID": "0", CUDA: "0,1"})
    assert re.search(
        r"8 on this node; rank 0 has GPU 0 \(in order, which ranks of this node share\)", capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"gpu": 2}, "2 are visible: 0, 1"),
        ({"gpu": -1}, "cannot be used"),
        ({"gpu": "GPU-x"}, "cannot be used"),
        ({"gpu_map": "0,4"}, "names GPU 4"),
        ({"gpu_map": "a"}, "not a list"),
        ({"gpu_map": ""}, "not a list"),
        ({"gpu_map": [0, -1]}, "not a list"),
    ],
)
def test_unusable_arguments(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        startup.init(environ={CUDA: "0,1"}, **arguments)  # type: ignore[arg-type]


def test_too_late_once_cuda_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "cuda_is_running", lambda: True)
    assert startup.init(environ={CUDA: "0,1"}).gpu == "0"  # nothing to change
    with pytest.raises(LaunchError, match="before anything that uses the GPU"):
        startup.init(environ={CUDA: "0,1"}, gpu=1)


def test_counting_gpus(tmp_path: Path) -> None:
    assert gpu_map.count_gpus(tmp_path, tmp_path) == 0
    nodes = tmp_path / "class/kfd/kfd/topology/nodes"
    for number, simds in enumerate([0, 440, 440]):
        (nodes / str(number)).mkdir(parents=True)
        (nodes / str(number) / "properties").write_text(f"cpu_cores_count 1\nsimd_count {simds}\n")
    assert gpu_map.count_gpus(tmp_path, tmp_path) == 2
    for name in ("nvidia0", "nvidia1", "nvidia12", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert gpu_map.count_gpus(tmp_path, tmp_path) == 3
    assert gpu_map.visible_variable(tmp_path) == CUDA
    (tmp_path / "nvidiactl").unlink()
    (tmp_path / "kfd").touch()
    assert gpu_map.visible_variable(tmp_path) == "ROCR_VISIBLE_DEVICES"


def test_it_is_loaded_on_first_use() -> None:
    assert sparsecomm.launch.init is startup.init
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        sparsecomm.launch.nothing_of_that_name  # noqa: B018


CODE = "import sys, sparsecomm.launch as l; job = l.init(); sys.stdout.write(f'{job} world {job.comm.size}\\n')"


@pytest.mark.parametrize(("mpi", "name"), [("mpich", "hydra"), ("openmpi", "Open MPI")])
def test_real_job(mpi: str, name: str) -> None:
    job = run_job(2, ["python", "-c", CODE], mpi=mpi, env={CUDA: ""}, timeout=200)
    assert job.rc == 0, job
    assert sorted(re.findall(r"size=2, rank=(\d), local_rank=\1, local_size=2, gpu=None\) world 2", job.stdout)) == [
        "0",
        "1",
    ]
    assert re.findall(
        rf"^sparsecomm: .*{name}.*: 2 ranks, 2 on this node; rank 0 has no GPU$", job.stderr, re.MULTILINE
    )


def test_after_mpi_is_started_mpi_is_asked() -> None:
    code = f"from mpi4py import MPI; import os; [os.environ.pop(n) for n in ('MPI_LOCALRANKID', 'PMI_RANK')]; {CODE}"
    job = run_job(2, ["python", "-c", code], env={CUDA: ""}, timeout=200)
    assert job.rc == 0, job
    assert sorted(re.findall(r"size=2, rank=(\d), local_rank=\1, local_size=2", job.stdout)) == ["0", "1"]


def test_torchrun_starts_no_mpi_job() -> None:
    environ = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", CUDA: ""}
    job = run([sys.executable, "-c", CODE], timeout=200, env=environ)
    assert "LaunchError" in job.stderr, job
    assert "started 2 processes, but MPI sees 1" in job.stderr, job


def test_no_environment_of_ours_is_touched() -> None:
    before = dict(os.environ)
    startup.init(environ={CUDA: "1,0"}, gpu=1)
    assert dict(os.environ) == before
