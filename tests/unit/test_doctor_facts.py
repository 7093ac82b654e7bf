"""How `sparsecomm doctor` finds its facts and prints them: from invented systems, and from this one."""

from __future__ import annotations

import io
import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from sparsecomm.errors import LaunchError
from sparsecomm.launch.doctor import cuda, gpu_view, limits, nccl, probe, software
from sparsecomm.launch.doctor.checks import find_all
from sparsecomm.launch.doctor.differences import describe, name_ranks
from sparsecomm.launch.doctor.facts import Facts, World, find_process
from sparsecomm.launch.doctor.finding import Finding
from sparsecomm.launch.doctor.gpu_exchange import pattern
from sparsecomm.launch.doctor.gpu_view import GpuView, find_view
from sparsecomm.launch.doctor.joining import make_world, why_not
from sparsecomm.launch.doctor.page import make_sections, show_page, verdict
from sparsecomm.launch.doctor.run import speaks, to_json
from sparsecomm.launch.doctor.sizes import size_text
from sparsecomm.launch.machine.cgroup import find_cpu_quota, find_memory_limit
from sparsecomm.launch.machine.gpus import Gpus
from sparsecomm.launch.world import Place
from tests.doctor_cases import MPICH, alone, gpu_job, gpus, job, pieces, process, uuid


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


# control groups


def test_limits_of_version_2_are_those_of_the_group_and_around_it(tmp_path: Path) -> None:
    proc = write(tmp_path / "proc", {"self/cgroup": "0::/slurm/job_17/step_0\n"})
    files = {
        "memory.max": "max",
        "slurm/memory.max": "max",
        "slurm/job_17/memory.max": "4294967296",
        "slurm/job_17/step_0/memory.max": "8589934592",
        "slurm/job_17/cpu.max": "150000 100000",
        "slurm/job_17/step_0/cpu.max": "max 100000",
    }
    for mount in ("fs/cgroup", "fs/cgroup/unified"):
        sys = write(tmp_path / mount.replace("/", "_"), {f"{mount}/{name}": text for name, text in files.items()})
        assert find_memory_limit(sys, proc) == 4 << 30
        assert find_cpu_quota(sys, proc) == 1.5


def test_limits_of_version_1(tmp_path: Path) -> None:
    proc = write(tmp_path / "proc", {"self/cgroup": "4:memory:/docker/ab\n1:cpu,cpuacct:/docker/ab\n0::/\n"})
    files = {
        "memory/memory.limit_in_bytes": "9223372036854771712",
        "memory/docker/ab/memory.limit_in_bytes": "2147483648",
        "cpu/docker/ab/cpu.cfs_quota_us": "-1",
        "cpu/docker/ab/cpu.cfs_period_us": "100000",
        "cpu/cpu.cfs_quota_us": "400000",
        "cpu/cpu.cfs_period_us": "100000",
    }
    sys = write(tmp_path / "sys", {f"fs/cgroup/{name}": text for name, text in files.items()})
    assert find_memory_limit(sys, proc) == 2 << 30
    assert find_cpu_quota(sys, proc) == 4.0


def test_inside_a_container_the_root_is_the_group(tmp_path: Path) -> None:
    proc = write(tmp_path / "proc", {"self/cgroup": "0::/../../elsewhere\n"})
    sys = write(tmp_path / "sys", {"fs/cgroup/memory.max": "1073741824\n", "fs/cgroup/cpu.max": "50000 100000\n"})
    assert find_memory_limit(sys, proc) == 1 << 30
    assert find_cpu_quota(sys, proc) == 0.5


def test_without_control_groups(tmp_path: Path) -> None:
    assert find_memory_limit(tmp_path, tmp_path) is None
    assert find_cpu_quota(tmp_path, tmp_path) is None


# shared memory


def test_segments_that_nobody_maps_are_left_behind(tmp_path: Path) -> None:
    shm = write(tmp_path / "shm", {"mpich_shm_a_0": "x" * 9000, "sm_segment.vm.0": "y" * 9000, "notes": "z" * 9000})
    used = (shm / "sm_segment.vm.0").stat().st_ino
    proc = write(tmp_path / "proc", {"7/maps": f"7f00-7f01 rw-s 00000000 00:18 {used}    {shm}/sm_segment.vm.0\n"})
    found = limits.find_shared_memory(shm, proc)
    assert found is not None
    assert found.num_left == 1
    assert found.left_bytes >= 9000
    assert found.free_bytes <= found.total_bytes
    assert limits.find_shared_memory(tmp_path / "none", proc) is None


# software


def test_versions_are_compared_as_numbers() -> None:
    assert software.numbers("4.10.1rc2") == (4, 10, 1)
    assert software.numbers("4.10") > software.numbers("4.9.9")
    assert software.numbers("dev") == ()


@pytest.mark.parametrize(("number", "text"), [(22703, "2.27.3"), (21805, "2.18.5"), (2708, "2.7.8")])
def test_nccl_counts_its_versions(number: int, text: str) -> None:
    assert nccl.version_text(number) == text


def test_nccl_that_does_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "libnccl.so.2"
    broken.write_bytes(b"not a library")
    monkeypatch.setattr(nccl, "_in_wheels", lambda: [str(broken)])
    assert nccl.find_nccl()[0] == nccl.Nccl(str(broken), "")


def test_this_process() -> None:
    found = find_process({"OMP_NUM_THREADS": "3", "SECRET_TOKEN": "x"})
    assert found.place is None
    assert found.variables == (("OMP_NUM_THREADS", "3"),)
    assert found.software.version("numpy").startswith("2.")
    assert found.software.version("nothing") == ""
    assert ("numpy", "2.0") in found.software.minimum
    assert found.cpus.allowed == tuple(sorted(os.sched_getaffinity(0)))
    assert pickle.loads(pickle.dumps(found)) == found


# GPUs of a rank


def test_names_of_gpus_become_uuids() -> None:
    assert GpuView(gpus(3)).seen == (uuid(0), uuid(1), uuid(2))
    assert GpuView(gpus(3), ("2", "0")).seen == (uuid(2), uuid(0))
    assert GpuView(gpus(3), (uuid(1), "MIG-ab")).seen == (uuid(1), "MIG-ab")
    assert GpuView(gpus(3), ()).seen == ()


def test_view_of_a_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_view, "visible_variable", lambda: "CUDA_VISIBLE_DEVICES")
    place, environ = Place("srun", 8, 5, 1, 4, "X"), {"CUDA_VISIBLE_DEVICES": "3,2,1"}
    found = find_view(gpus(4), place, environ)
    assert (found.visible, found.own, found.own_uuid) == (("3", "2", "1"), "2", uuid(2))
    assert environ == {"CUDA_VISIBLE_DEVICES": "3,2,1"}
    assert find_view(gpus(4), replace(place, local_rank=None), environ).own is None
    wrong = find_view(gpus(4), place, {**environ, "SPARSECOMM_GPU_MAP": "0,7"})
    assert "names GPU 7" in wrong.why_none
    assert find_view(Gpus((), ""), None, {"CUDA_VISIBLE_DEVICES": ""}).own_uuid is None


# joining


def test_why_mpi_did_not_start() -> None:
    assert why_not(None, "anything", 5.0) == "MPI did not start within 5 s"
    assert why_not(16, "------\nno PMI here\n------\n", 5.0) == "no PMI here"
    assert why_not(-11, "", 5.0) == "the process that started MPI ended with code -11"
    text = "Traceback\nRuntimeError: cannot load MPI library\nlibmpi.so.12: no such file"
    assert why_not(1, text, 5.0) == "RuntimeError: cannot load MPI library"


def test_world_from_what_the_library_says() -> None:
    world = make_world("MPICH Version:      5.0.2\nMPICH Release date: today\0", 4, "", "")
    assert (world.library, world.family, world.version, world.name) == (
        "MPICH Version: 5.0.2",
        "MPICH",
        "5.0.2",
        "MPICH 5.0.2",
    )
    assert World().name == ""


def test_one_process_speaks() -> None:
    assert speaks(alone())
    assert speaks(job(4))
    assert speaks(pieces("srun", 1, MPICH))
    assert speaks(pieces("srun", None, MPICH, "no PMI"))
    last = replace(process(), place=Place("srun", 4, 3, 3, 4, "X"))
    assert not speaks(Facts((last,), (0,), replace(MPICH, size=1)))
    assert not speaks(Facts((last,), (0,), replace(MPICH, error="no PMI")))
    assert not speaks(Facts((last,), (0,), MPICH))  # what it found is with rank 0


# the page


def page(facts: Facts, findings: list[Finding] | None = None) -> str:
    out = io.StringIO()
    show_page(facts, find_all(facts) if findings is None else findings, out)
    return out.getvalue()


def test_page_of_a_job_with_gpus() -> None:
    text = page(gpu_job())
    for words in (
        "mpiexec (hydra) of MPICH or Intel MPI, 4 ranks",
        "node 0, node0: ranks 0-3",
        f"1: {uuid(1)} H100, 80 GiB",
        "0 reads 1-3, NVLink to 1-3",
        "0,1,2,3",
        f"rank 2: {uuid(2)}",
        "/env/libnccl.so.2 (2.27.3)",
        "rank 1: cpus 4-7 of NUMA node 0",
        "nothing is wrong",
    ):
        assert words in text
    assert all(line == line.rstrip() and len(line) <= 110 for line in text.splitlines())


def test_page_prints_names_as_they_are() -> None:
    odd = alone(host="[bold]n1[/bold]:smile:")
    assert "[bold]n1[/bold]:smile:" in page(odd)
    assert "[red]x[/red]" in page(alone(), [Finding("[red]x[/red]", "note", "says", "cure")])


def test_page_of_many_nodes_stays_a_page() -> None:
    ranks = tuple(replace(one, host=f"n{rank}") for rank, one in enumerate(job(16).processes))
    text = page(replace(job(16), processes=ranks, nodes=tuple(range(16))))
    assert "and 8 more nodes, which --json shows" in text
    assert len(text.splitlines()) < 80


def test_headings_of_the_page() -> None:
    assert [heading for heading, _ in make_sections(alone())] == ["job", "MPI", "GPUs", "CPUs", "limits", "Python"]


def test_verdict_counts() -> None:
    found = [Finding("a", level, "b", "c") for level in ("error", "note", "note")]
    assert verdict(found) == "1 error, 2 notes"
    assert verdict([]) == "nothing is wrong"


def test_json_names_what_differs() -> None:
    report = to_json(gpu_job(), find_all(gpu_job()))
    assert report["schema"] == "sparsecomm.doctor/1"
    assert (report["ranks"], report["gathered"], report["exit_code"]) == (4, True, 0)
    assert report["nodes"] == [{"host": "node0", "ranks": [0, 1, 2, 3]}]
    assert [one["gpus"]["own_uuid"] for one in report["processes"]] == [uuid(rank) for rank in range(4)]
    assert report["processes"][1]["software"]["packages"]["scipy"] == "1.17.1"
    torn = pieces("srun", 1, MPICH)
    assert to_json(torn, find_all(torn))["exit_code"] == 1


def test_only_differences_name_ranks() -> None:
    assert describe(["a", "a"]) == ["a"]
    assert describe(["a", "b", "a"]) == ["ranks 0,2: a", "rank 1: b"]
    assert describe(["a", "b"], [6, 7]) == ["rank 6: a", "rank 7: b"]
    assert name_ranks([0, 1, 2, 5]) == "ranks 0-2,5"
    assert [size_text(one) for one in (3 << 30, 48 << 20, 4096)] == ["3 GiB", "48 MiB", "4 KiB"]


# GPU-aware MPI


@pytest.mark.parametrize(
    ("verdict_text", "code", "lines", "state", "words"),
    [
        ("works", 0, [], "works", "were compared"),
        ("works", 1, ["died later"], "fails", "code 1: died later"),
        ("64 bytes arrive wrong", 0, [], "fails", "arrive wrong"),
        ("", 139, ["Segmentation fault"], "fails", "code 139: Segmentation fault"),
        ("", None, [], "fails", "did not end"),
        ("no GPU: there is no CUDA driver", 1, [], "impossible", "no CUDA driver"),
    ],
)
def test_verdict_of_the_probe(verdict_text: str, code: int | None, lines: list[str], state: str, words: str) -> None:
    found = probe.judge(verdict_text, code, lines)
    assert found.state == state
    assert words in found.detail


def test_probe_needs_a_gpu_and_an_mpiexec() -> None:
    assert probe.probe_gpu_mpi(alone()).detail == "this process sees no GPU"
    view = GpuView(gpus(1))
    assert "no MPI" in probe.probe_gpu_mpi(alone(World(), gpus=view)).detail
    bare = replace(process().software, mpiexec=None)
    assert "no mpiexec" in probe.probe_gpu_mpi(alone(gpus=view, software=bare)).detail


def test_probe_leaves_this_job() -> None:
    environ = {"PMI_RANK": "3", "OMPI_COMM_WORLD_SIZE": "2", "SLURM_JOB_NODELIST": "n[1-2]", "PATH": "/bin"}
    found = probe.child_environment(environ)
    assert {"PMI_RANK", "OMPI_COMM_WORLD_SIZE", "SLURM_JOB_NODELIST"}.isdisjoint(found)
    assert (found["PATH"], found["HYDRA_LAUNCHER"]) == ("/bin", "fork")


def test_without_a_driver_there_is_no_device_memory() -> None:
    with pytest.raises(LaunchError, match="there is no CUDA driver"):
        cuda.DeviceMemory(8, library="libnothing-of-that-name.so")


def test_pattern_is_not_zero_and_does_not_repeat_by_powers_of_two() -> None:
    data = pattern(1 << 16)
    assert len(data) == 1 << 16
    assert 0 not in data
    assert data[:256] != data[256:512]
