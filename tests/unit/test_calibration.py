"""Calibrations: fits of made-up machines, files, and the command over threads."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from sparsecomm.apps.calibrate import calibrate
from sparsecomm.calibration import Calibration, Multiplied, Point, default_path, fit_link, fit_product
from sparsecomm.collectives.pairs import SIZES, measure_level
from sparsecomm.collectives.transport.local import run_local
from sparsecomm.cost import CostModel, Link
from sparsecomm.errors import InputError
from sparsecomm.kernels.ceilings import ROW_BYTES, SETS_BYTES, Ceilings
from sparsecomm.kernels.reuse import Reuse
from sparsecomm.topology import Topology
from tests.cli import sparsecomm

MADE = Calibration(
    "here", 4, {"node": Link(1e-6, 2e9, 3e9), "network": Link(5e-5, 1e8, 1.2e8)}, 4e9, 1e-9, 2e-11, 3.0, "", 7e-9, 1e-10
)


def _points(latency_s: float, rank_Bps: float, group_Bps: float, lanes: int, noise: float) -> list[Point]:
    rng = np.random.default_rng(0)

    def point(active: int, messages: int, size: int) -> Point:
        moving = messages * max(size / rank_Bps, active * size / group_Bps)
        return Point(active, messages, size, (latency_s * messages + moving) * (1 + noise * rng.standard_normal()))

    return [point(active, 1, size) for active in {1, lanes} for size in SIZES] + [
        point(lanes, 7, size) for size in SIZES[:5]
    ]


@pytest.mark.parametrize(("lanes", "noise"), [(1, 0.0), (4, 0.0), (4, 0.05)])
def test_fit_finds_the_machine(lanes: int, noise: float) -> None:
    """One lane does 10 GB/s, four together 25, which is less than four times as much."""
    found = fit_link(_points(3e-6, 10e9, 25e9, lanes, noise))
    limit = 10e9 if lanes == 1 else 25e9
    assert (found.latency_s, found.rank_Bps, found.group_Bps) == pytest.approx(
        (3e-6, 10e9, limit), rel=3 * noise + 1e-6
    )


def test_fit_of_products() -> None:
    points = [
        Multiplied(nnz, rows, size, nnz * (2e-9 + 3e-11 * size) + rows * (5e-9 + 1e-10 * size))
        for nnz, rows in ((1000, 100), (200, 100))
        for size in (4, 256, 1024)
    ]
    assert fit_product(points) == pytest.approx((2e-9, 3e-11, 5e-9, 1e-10))


def test_model_uses_what_was_measured() -> None:
    topology = Topology.parse("uniform:2x2")
    model = MADE.model(topology)
    assert model.links == (MADE.levels["node"], MADE.levels["network"])
    assert model.product_s(1000, 10, 256, 4) == pytest.approx(1000 * (1e-9 + 256 * 2e-11) + 10 * (7e-9 + 256e-10))
    assert (model.crowding, model.overlap) == (3.0, True)
    summit = Topology.parse("summit:1")
    assert MADE.model(summit).links == (Link.of(summit.levels[0]), MADE.levels["node"], MADE.levels["network"])


def test_levels_that_were_not_measured_are_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By one rank of a job, and by a plan; not where all were measured."""
    MADE.save(tmp_path / "c.json")
    words = ("grid2d:16", "--calibration", tmp_path / "c.json")
    for topology, times in (("summit:1", 1), ("uniform:3x2", 0)):
        for command in (["plan"], ["spmm", "--transport", "local"]):
            caplog.clear()
            assert sparsecomm(*command, *words, "-t", topology).rc == 0
            said = [one.getMessage() for one in caplog.records if "calibration of" in one.getMessage()]
            assert len(said) == times
            assert all("knows node, network, not socket" in one for one in said)


def test_nonzeros_take_what_the_memory_of_their_rows_takes(tmp_path: Path) -> None:
    near, far = (tuple(1e-9 * (1 + 99 * (size > 1 << 17)) * (1 + row) for size in SETS_BYTES) for row in (0, 0))
    made = replace(MADE, kernel=Ceilings("any", 1, (near, near, far, far), (0.0,) * len(ROW_BYTES)))
    made.save(tmp_path / "c.json")
    assert Calibration.load(tmp_path / "c.json") == made
    one = csr_array((np.ones(1000), np.zeros(1000, np.int64), np.arange(1001)), (1000, 1000))
    spread = csr_array((np.ones(1000), np.arange(1000), np.arange(1001)), (1000, 1000))
    topology = Topology.parse("uniform:2x2")
    times = []
    for matrix in (one, spread):
        model = CostModel.calibrated(topology, tmp_path / "c.json", Reuse.of_first(matrix, 1000))
        times.append(model.product_s(5000, 0, 1024, 4))
    assert times[0] == pytest.approx(5000e-9, rel=0.5)  # one row of X is always near
    assert times[1] == pytest.approx(5000 * 100e-9)  # every row is as far away as all that is touched
    assert made.model(topology).product_s(1000, 10, 256, 4) == MADE.model(topology).product_s(1000, 10, 256, 4)


@pytest.mark.parametrize("wrong", [{}, {"nonzero_s": [[1e-9]]}, {"row_s": [-1.0] * 4}, {"row_s": "much"}])
def test_a_damaged_kernel_is_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    table = ((1e-9,) * len(SETS_BYTES),) * len(ROW_BYTES)
    good = asdict(Ceilings("any", 1, table, (0.0,) * len(ROW_BYTES)))
    kernel = good | wrong if wrong else {"threads": 1}
    MADE.save(tmp_path / "c.json")
    data = json.loads((tmp_path / "c.json").read_text())
    (tmp_path / "c.json").write_text(json.dumps(data | {"kernel": kernel}))
    with pytest.raises(InputError, match="incomplete"):
        Calibration.load(tmp_path / "c.json")


def test_there_and_back(tmp_path: Path) -> None:
    MADE.save(tmp_path / "new" / "c.json")
    assert Calibration.load(tmp_path / "new" / "c.json") == MADE
    assert CostModel.calibrated(Topology.parse("uniform:2x2"), tmp_path / "new" / "c.json").memory_Bps == 4e9
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["c.json"]
    data = json.loads((tmp_path / "new" / "c.json").read_text())
    (tmp_path / "old.json").write_text(json.dumps({k: v for k, v in data.items() if not k.startswith("row_")}))
    assert Calibration.load(tmp_path / "old.json") == replace(MADE, row_s=0.0, row_byte_s=0.0)


def test_default_is_by_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("platform.node", lambda: "lab7")
    MADE.save(default_path())
    assert (tmp_path / "sparsecomm" / "calibrations" / "lab7.json").exists()
    assert CostModel.calibrated(Topology.parse("uniform:2x2")).memory_Bps == 4e9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("[]", "not a calibration"),
        ('{"format": "other"}', "not a calibration"),
        ('{"format": "sparsecomm.calibration/1"}', "incomplete"),
        ("memory_Bps=-1", "memory_Bps is -1"),
        ("byte_s=x", "byte_s is 'x'"),
        ("crowding=0.5", "crowding is 0.5"),
        ("levels=7", "incomplete"),
        ("gpu=7", "incomplete"),
        ('gpu={"node": {"nccl": {"latency_s": 0, "rank_Bps": 0, "group_Bps": 1}}}', "rank_Bps is 0"),
        ('levels={"node": {"latency_s": -1, "rank_Bps": 1, "group_Bps": 1}}', "latency_s is -1"),
        ('levels={"node": {"latency_s": 0}}', "incomplete"),
    ],
)
def test_damaged_files(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    key, equals, value = text.partition("=")
    if equals and not text.startswith("{"):
        MADE.save(path)
        data = json.loads(path.read_text())
        data[key] = value if value == "x" else json.loads(value)
        text = json.dumps(data)
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        Calibration.load(path)
    ran = sparsecomm("plan", "grid2d:8", "-t", "uniform:2x1", "--calibration", path)
    assert (ran.rc, ran.stdout) == (2, "")


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sparsecomm calibrate"):
        Calibration.load(tmp_path / "c.json")


@pytest.mark.parametrize(
    ("spec", "levels"), [("nodes:2,2,1", {"node": {1}, "network": {1, 2}}), ("uniform:1x3", {"node": {1}})]
)
def test_every_level_is_measured(spec: str, levels: dict[str, set[int]]) -> None:
    topology = Topology.parse(spec)

    def body(transport: object) -> dict[str, list[Point]]:
        return {
            level.name: measure_level(transport, topology, number, sizes=(8, 1 << 12))
            for number, level in enumerate(topology.levels)
        }

    found = run_local(topology.num_ranks, body)
    assert all(one == found[0] for one in found)
    assert {name: {point.lanes for point in points} for name, points in found[0].items() if points} == levels
    assert all(point.seconds > 0 for points in found[0].values() for point in points)


def test_calibrate_and_plan_with_it(tmp_path: Path) -> None:
    topology = Topology.parse("uniform:2x2")
    made = run_local(4, lambda t: calibrate(topology, t, sizes=(8, 1 << 12, 1 << 16), scale=8, kernel=False))
    assert made[0] == made[3]
    assert made[0].levels.keys() == {"node", "network"}
    made[0].save(tmp_path / "c.json")
    words = ("rmat:8", "-t", "uniform:2x2", "--calibration", tmp_path / "c.json")
    plan = sparsecomm("plan", *words, "--json").json
    spmm = sparsecomm("spmm", *words, "--transport", "local", "--repeat", 1, "--json").json
    assert plan["calibration"] == spmm["calibration"] == str(tmp_path / "c.json")
    assert plan["strategies"] == spmm["strategies"] != sparsecomm("plan", *words[:3], "--json").json["strategies"]
    shown = sparsecomm("spmm", *words, "--transport", "local", "--repeat", 1).stdout
    assert f"predicted with what was measured, {tmp_path / 'c.json'}" in shown


def test_calibrate_refuses_another_machine() -> None:
    with pytest.raises(InputError, match="has 4 ranks, but 2 are running"):
        run_local(2, lambda t: calibrate(Topology.parse("uniform:2x2"), t))
    ran = sparsecomm("calibrate", "-t", "uniform:2x2", "-n", 3)
    assert (ran.rc, ran.stdout) == (2, "")
