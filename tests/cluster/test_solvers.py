"""The solver of docs/solvers.md on the nodes of a cluster: conjugate gradients agree with scipy's."""

from __future__ import annotations

import re

import pytest

from tests.cluster.conftest import clusters
from tests.jobs import ROOT


@pytest.mark.parametrize("num_nodes", [1, 4])
def test_cg(num_nodes: int, machine: None, env: str) -> None:
    with clusters(f"cg{num_nodes}") as cluster:
        cluster.up("--nodes", str(num_nodes), "--ranks-per-node", "1")
        job = cluster.run(["python", str(ROOT / "docs" / "examples" / "cg.py")], "--env", env)
    assert job.rc == 0, job
    # The example itself compares its answer with scipy's and fails beyond 1e-8.
    assert re.search(rf"cg on {num_nodes} ranks: residual \S+, difference to scipy \S+", job.stdout), job
