"""The real Slurm of a cluster: srun, sbatch, and what it says of the scripts that `sparsecomm launch` writes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.conftest import Clusters, clusters
from tests.jobs import ROOT, Job

GOLDEN = ROOT / "tests" / "golden" / "launch"

pytestmark = pytest.mark.usefixtures("slurm")


def head(cluster: Clusters, *command: str) -> Job:
    return cluster.run(command, "--on", "head")


@pytest.mark.parametrize("via", ["srun", "sbatch"])
def test_the_code_of_a_job_is_returned(cluster: Clusters, via: str) -> None:
    assert cluster.run(["sh", "-c", "exit 5"], "--via", via).rc == 5


def test_a_deadline_cancels_the_job(cluster: Clusters) -> None:
    job = cluster.run(["sleep", "1000"], "--via", "sbatch", timeout=2)
    assert job.rc == 86, job
    assert "cancelled" in job.stderr
    queue = head(cluster, "squeue", "--noheader", "--states=pending,running")
    assert (queue.rc, queue.stdout) == (0, ""), queue


def test_a_job_outlives_the_command_that_submitted_it(cluster: Clusters, tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text(f"#!/bin/bash\n#SBATCH -o {tmp_path}/out\ntouch {tmp_path}/began; sleep 1; echo done\n")
    wait = f"sbatch {script} && until [ -e {tmp_path}/began ]; do sleep 0.1; done"
    job = head(cluster, "sh", "-c", wait)
    assert job.rc == 0, job
    until = time.monotonic() + 200
    while (tmp_path / "out").read_text() != "done\n" and time.monotonic() < until:
        time.sleep(0.1)
    assert (tmp_path / "out").read_text() == "done\n"


@pytest.fixture(scope="module")
def sites(slurm: None) -> Iterator[Clusters]:
    """Eight nodes that Slurm believes to have the cores, GPUs and names of large machines; nothing is run on them."""
    with clusters("sites") as one:
        one.up("--nodes", "8", "--ranks-per-node", "128", "--slurm")
        node = "scontrol update NodeName=node[0-7]"
        changes = ["scontrol create PartitionName=batch Nodes=ALL", f"{node} Features=gpu", f"{node} Gres=gpu:8"]
        job = head(one, "sh", "-c", " && ".join(changes))
        assert job.rc == 0, job
        yield one


@pytest.mark.parametrize("preset", ["slurm", "frontier", "perlmutter"])
def test_slurm_accepts_the_golden_scripts(sites: Clusters, preset: str) -> None:
    job = head(sites, "sbatch", "--test-only", str(GOLDEN / f"{preset}-8.sh"))
    assert job.rc == 0, job
    assert "on nodes node[0-7] in partition " + ("batch" if preset == "frontier" else "all") in job.stderr


def test_slurm_refuses_more_nodes_than_there_are(sites: Clusters) -> None:
    job = head(sites, "sbatch", "--test-only", str(GOLDEN / "slurm-1000.sh"))
    assert job.rc != 0, job
    assert "node configuration is not available" in job.stderr
