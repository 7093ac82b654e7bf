"""Reports: their figures are those of plans and recordings, and what is lost is said, not guessed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from sparsecomm.apps.picture import density
from sparsecomm.apps.report.case import load_case
from sparsecomm.apps.report.predicted import predicted_steps
from sparsecomm.apps.report.summary import stages_of
from sparsecomm.apps.report.transfers import match
from sparsecomm.apps.spmm import SpmmOptions, run_spmm
from sparsecomm.apps.summary import Json
from sparsecomm.calibration import Calibration
from sparsecomm.collectives.transport.local import LocalTransport, run_local
from sparsecomm.cost import Link
from sparsecomm.io.matrix import read_matrix
from sparsecomm.product_store import load_product
from sparsecomm.profile_store import rank_file
from sparsecomm.topology import Topology
from sparsecomm.traffic import traffic_of
from tests.cli import sparsecomm

PLANNING = ("rmat:9", "-t", "summit:2", "-k", "8")
REPEAT = 3


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan by strategy cover and a run of it."""
    folder = tmp_path_factory.mktemp("report")
    assert sparsecomm("plan", *PLANNING, "-s", "cover", "-o", folder / "plan").rc == 0
    run = ("--plan", folder / "plan", "--transport", "local", "--repeat", REPEAT, "--profile", folder / "run")
    assert sparsecomm("spmm", *PLANNING, *run).rc == 0
    return folder


@pytest.mark.parametrize("kind", ["plan", "run"])
def test_levels_equal_what_the_plan_counts(made: Path, kind: str) -> None:
    report = sparsecomm("report", made / kind, "--json").json
    product = load_product(made / "plan")
    volume = product.volume()
    assert report["schema"] == "sparsecomm.report/1"
    for number, name in enumerate(product.topology.level_names):
        level = report["levels"][name]
        assert level["rows"] == volume.rows[number]
        assert level["bytes"] == volume.rows[number] * 8 * 4
        assert level["messages"] == volume.messages[number]
        assert level["max_rank_bytes"] == volume.max_rank_rows[number] * 8 * 4
        assert level["max_group_rows"] == {"in": volume.max_group_in[number], "out": volume.max_group_out[number]}
    assert report["saved"]["rows"] == volume.rows[-1] == report["bounds"]["two_party_minimum"]
    assert sum(stage["rows"] for stage in report["stages"]) == volume.rows.sum()


def test_phases_are_predicted_as_in_the_plan(tmp_path: Path) -> None:
    """The scatter of `relay` waits for its gather, in the report of a plan as in the plan itself."""
    planned = sparsecomm("plan", "rmat:9", "-t", "uniform:4x2", "-s", "relay", "-o", tmp_path / "plan", "--json").json
    entry, parts = planned["strategies"]["relay"], planned["strategies"]["relay"]["predicted_parts_s"]
    assert (entry["phases"], planned["strategies"]["cover"]["phases"]) == (2, 1)
    assert load_product(tmp_path / "plan").volume().phases
    for name, level in sparsecomm("report", tmp_path / "plan", "--json").json["levels"].items():
        seconds = sum(value for part, value in parts.items() if part.startswith(name))
        assert level["predicted_s"] == pytest.approx(seconds)


def test_traffic_is_what_the_stages_say(made: Path) -> None:
    product = load_product(made / "plan")
    wanted = np.zeros((product.num_ranks, product.num_ranks), dtype=np.int64)
    for plan, reverse in ((product.gather, False), (product.scatter, True)):
        for stage in plan.stages:
            np.add.at(wanted, (stage.dst, stage.src) if reverse else (stage.src, stage.dst), 1)
    for traffic in (load_case(made / "plan").traffic, load_case(made / "run").traffic, traffic_of(product)):
        found = np.zeros_like(wanted)
        np.add.at(found, (traffic.src, traffic.dst), traffic.rows)
        assert np.array_equal(found, wanted)


def test_ends_of_plan_and_run_agree(made: Path) -> None:
    plan, run = load_case(made / "plan").traffic, load_case(made / "run").traffic
    assert plan.given.sum() == run.given.sum() > 0
    ghosts = [np.diff(one.ghost_indptr).sum() for one in (load_product(made / "plan").gather,)]
    assert plan.final[plan.part == 0].sum() == ghosts[0]


def test_every_message_is_matched_at_both_ends(made: Path) -> None:
    case = load_case(made / "run")
    transfers = match(case.ranks)
    assert len(transfers) == REPEAT * int(case.traffic.count.sum())
    assert transfers.num_bytes.sum() == REPEAT * case.traffic.num_bytes.sum()
    assert np.array_equal(case.topology.level_of(transfers.src, transfers.dst), transfers.level)
    assert transfers.end.max() - transfers.begin.min() < 3600e9


def test_a_run_is_held_against_its_plan(made: Path) -> None:
    report = sparsecomm("report", made / "run", "--json").json
    assert report["planned"]["equal"] is True
    assert report["products"] == REPEAT
    parts = report["time"]["parts"]
    assert parts["max_s"].keys() == {"product", "pack", "send", "wait", "unpack", "drain"}
    assert 0 <= parts["overlap"] <= 1
    assert min(parts["mean_s"].values()) >= 0


def test_rows_that_are_read_where_they_lie_are_counted_apart(tmp_path: Path) -> None:
    topology = Topology.parse("uniform:2x2")
    options = SpmmOptions("rmat:9", width=8, strategy="hierarchical", repeat=2, profile=tmp_path / "run")

    def work(transport: LocalTransport) -> Json:
        near = transport.duplicate(1)
        ran = run_spmm(options, topology, near)
        near.close()
        return ran

    ran = run_local(4, work)[0]
    report = sparsecomm("report", tmp_path / "run", "--json").json
    node = report["levels"]["node"]
    assert node["bytes"] == 0
    assert node["bytes_loaded"] == ran["executed"]["bytes_loaded"]["node"] == node["rows"] * 8 * 4 > 0
    assert report["levels"]["network"]["bytes"] == ran["executed"]["bytes"]["network"]
    assert report["planned"]["equal"] is True


def test_a_calibration_takes_the_place_of_the_topology(made: Path, tmp_path: Path) -> None:
    links = {name: Link(1e-6 * n, 1e9 * n, 4e9 * n) for n, name in enumerate(("socket", "node", "network"), 1)}
    Calibration("here", 12, links, 1e10, 1e-9, 1e-12, 1.0, "2026-01-01").save(tmp_path / "measured.json")
    plain, measured = (
        sparsecomm("report", made / "run", "--json", *more).json
        for more in ((), ("--calibration", tmp_path / "measured.json"))
    )
    assert (plain["calibrated"], measured["calibrated"]) == (None, "here")
    for name, link in links.items():
        level = measured["levels"][name]
        assert (level["latency_s"], level["peak_Bps"]) == (link.latency_s, link.rank_Bps)
        assert level["bytes"] == plain["levels"][name]["bytes"]
    text = sparsecomm("report", made / "run", "--calibration", tmp_path / "measured.json").stdout
    assert "predictions and peaks by what was measured on here" in text


def test_predicted_ranks_take_what_the_model_gives_the_busiest(made: Path) -> None:
    case = load_case(made / "plan")
    steps = predicted_steps(case)
    assert [(one.part, one.stage, one.level) for one in steps] == stages_of(case)
    before = np.zeros(12)
    for step in steps:
        one = case.traffic.take((case.traffic.part == step.part) & (case.traffic.stage == step.stage))
        whole = case.model.estimate(one.volume(case.topology), case.width, 4).levels_s[step.level]
        assert step.busy_s.max() == pytest.approx(whole)
        assert np.array_equal(step.begin_s, before)
        idle = np.setdiff1d(np.arange(12), np.concatenate([one.src, one.dst]))
        assert (step.busy_s[idle] == 0).all()
        for dst in range(12):
            senders = one.src[one.dst == dst]
            assert step.end_s[dst] == max((before + step.busy_s)[np.append(senders, dst)])
        before = step.end_s


def test_tables_say_it_in_words(made: Path) -> None:
    plan, run = (sparsecomm("report", made / kind) for kind in ("plan", "run"))
    assert plan.rc == run.rc == 0
    assert "strategy cover" in plan.stdout
    assert "of the network rows that direct moves" in plan.stdout
    assert "executed rows, bytes and messages of every level equal the plan" in run.stdout
    assert "network rows" in run.stdout


def test_a_plan_of_an_earlier_version_is_shown_without_savings(made: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(made / "plan", old)
    (old / "traffic.messages.npy").unlink()
    (old / "report.json").unlink()
    report = sparsecomm("report", old, "--json").json
    assert report["saved"] is None
    assert report["levels"]["network"]["rows"] == load_product(old).volume().rows[-1]


@pytest.fixture
def run_copy(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "run", tmp_path / "run")
    return tmp_path / "run"


def test_a_lost_rank_is_named_and_its_peers_tell_what_it_sent(run_copy: Path) -> None:
    whole = sparsecomm("report", run_copy, "--json").json
    rank_file(run_copy, 3).write_bytes(rank_file(run_copy, 3).read_bytes()[:300])
    ran = sparsecomm("report", run_copy, "--json")
    assert ran.rc == 0
    assert ran.json["missing"].keys() == {"3"}
    assert "rank 3 (damaged" in ran.json["words"]
    assert ran.json["planned"] is None
    assert [level["rows"] for level in ran.json["levels"].values()] == [
        level["rows"] for level in whole["levels"].values()
    ]


def test_nothing_left_is_an_error(run_copy: Path) -> None:
    for file in run_copy.glob("rank_*"):
        file.unlink()
    ran = sparsecomm("report", run_copy)
    assert (ran.rc, ran.stdout) == (2, "")
    assert "not one of the files of 12 ranks can be had (missing)" in ran.stderr


@pytest.mark.parametrize(
    ("file", "text"), [("report.json", "{"), ("traffic.messages.npy", "\x93NUMPY"), ("header.json", "[]")]
)
def test_a_damaged_plan_is_an_error(made: Path, tmp_path: Path, file: str, text: str) -> None:
    shutil.copytree(made / "plan", tmp_path / "plan")
    (tmp_path / "plan" / file).write_text(text)
    ran = sparsecomm("report", tmp_path / "plan")
    assert (ran.rc, ran.stdout) == (2, ""), ran
    assert file in ran.stderr


def test_another_directory_is_an_error(tmp_path: Path) -> None:
    ran = sparsecomm("report", tmp_path)
    assert (ran.rc, ran.stdout) == (2, "")
    assert "is no plan or profile directory" in ran.stderr


def test_a_picture_counts_every_nonzero_in_its_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparsecomm.apps.picture._PIECE", 100)
    matrix = read_matrix("er:300:7")
    wanted = np.zeros((128, 128), dtype=np.int64)
    row, col = matrix.nonzero()
    np.add.at(wanted, (row * 128 // 300, col * 128 // 300), 1)
    halves = (density(matrix[:170], 0, matrix.shape), density(matrix[170:], 170, matrix.shape))
    assert np.array_equal(halves[0] + halves[1], wanted)
    assert density(matrix[:0], 0, matrix.shape).sum() == 0
