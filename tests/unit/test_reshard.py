"""A partition directory cut anew by one pass: the same matrix, laid out and counted as in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from sparsecomm.apps.reshard import reshard
from sparsecomm.apps.source import load_source, save_source
from sparsecomm.matrix_store import load_matrix, load_partition_header, load_partition_layouts
from sparsecomm.partition.metrics import measure
from sparsecomm.partition.request import Request
from sparsecomm.topology import Topology
from tests.cli import sparsecomm


def _directory(path: Path, spec: str, machine: str, method: str = "random") -> csr_array:
    topology = Topology.parse(machine)
    source = load_source(spec, topology, method=method, dtype=None)
    save_source(path, source, topology)
    return source.matrix


@pytest.mark.parametrize("spec", ["rmat:8:5", "wide"])
@pytest.mark.parametrize("machine", ["uniform:2x2", "nodes:3,1,1"])
def test_the_same_matrix(spec: str, machine: str, tmp_path: Path) -> None:
    if spec == "wide":
        wide = np.random.default_rng(0).random((30, 70)) < 0.1
        spec = str(tmp_path / "wide.mtx")
        lines = [f"{i + 1} {j + 1}" for i, j in zip(*wide.nonzero(), strict=True)]
        head = ["%%MatrixMarket matrix coordinate pattern general", f"30 70 {len(lines)}"]
        Path(spec).write_text("\n".join([*head, *lines]))
    _directory(tmp_path / "before", spec, "uniform:3x1")
    topology = Topology.parse(machine)
    report = reshard(tmp_path / "before", topology, Request(), tmp_path / "after")
    header = load_partition_header(tmp_path / "after", topology.num_ranks)
    layouts = load_partition_layouts(tmp_path / "after", header)
    found = load_matrix(tmp_path / "after", layouts)
    whole = load_source(spec, Topology.parse("uniform:1x1"), dtype=None).matrix
    back = found[layouts.rows.to_all()][:, layouts.cols.to_all()]
    assert (back != whole).nnz == 0
    counted = measure(whole, layouts, topology, Request())["levels"]
    assert report["gather_rows"] == {
        "rank": counted["node"]["gather"]["rows"],
        "network": counted["network"]["gather"]["rows"],
    }
    without = reshard(tmp_path / "before", topology, Request(), None)
    assert without["gather_rows"] == report["gather_rows"]


def test_one_command_after_the_other(tmp_path: Path) -> None:
    before, after, plan = (tmp_path / name for name in ("before", "after", "plan"))
    _directory(before, "rmat:8:5", "uniform:1x3")
    for command in (
        f"partition {before} -t uniform:2x2 -m streaming -o {after}",
        f"plan {after} -t uniform:2x2 -o {plan}",
        f"spmm {after} --plan {plan} -n 4 --transport local --check",
    ):
        ran = sparsecomm(*command.split())
        assert ran.rc == 0, ran
