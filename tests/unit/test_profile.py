"""Profiles: what they count is what the plan says, and what is lost is said."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sparsecomm.apps.matrix import DistMatrix
from sparsecomm.apps.pace import Pace
from sparsecomm.collectives.profile import Profile
from sparsecomm.collectives.transport import clocks
from sparsecomm.collectives.transport.local import LocalTransport, run_local
from sparsecomm.errors import InputError
from sparsecomm.io.matrix import read_matrix
from sparsecomm.partition.registry import partition_rows
from sparsecomm.product_store import load_product
from sparsecomm.profile import COLUMNS, RECV, SEND, Kind, Recorder, TrackFacts, active, clock
from sparsecomm.profile_store import RankProfile, load_header, load_ranks, rank_file
from sparsecomm.topology import Topology
from tests.cli import sparsecomm

REPEAT = 3
WIDTH = 8


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan and a profile of it in one folder."""
    folder = tmp_path_factory.mktemp("profile")
    planning = ("rmat:9", "-t", "summit:2", "-k", WIDTH)
    assert sparsecomm("plan", *planning, "-s", "cover", "-o", folder / "plan").rc == 0
    ran = sparsecomm(
        *("spmm", *planning, "--plan", folder / "plan", "--transport", "local"),
        *("--repeat", REPEAT, "--profile", folder / "run"),
    )
    assert ran.rc == 0, ran
    return folder


def load(path: Path) -> list[RankProfile]:
    ranks, lost = load_ranks(path, load_header(path))
    assert not lost
    return ranks


def columns(ranks: list[RankProfile], *names: str) -> Iterator[Any]:
    whole = np.concatenate([rank.messages for rank in ranks])
    return (whole[:, COLUMNS.index(name)] for name in names)


def test_bytes_and_messages_of_every_peer_equal_the_plan(recorded: Path) -> None:
    product, ranks = load_product(recorded / "plan"), load(recorded / "run")
    tracks = [(track["name"], track["direction"]) for track in ranks[0].meta["tracks"]]
    assert tracks == [("gather", "forwards"), ("scatter", "in reverse")]
    num_messages = 0
    for number, plan in enumerate((product.gather, product.scatter)):
        for stage_number, stage in enumerate(plan.stages):
            ends = (stage.src, stage.dst) if number == 0 else (stage.dst, stage.src)
            pairs, rows = np.unique(np.stack(ends), axis=1, return_counts=True)
            num_messages += rows.size
            for side, (me, peer) in ((SEND, pairs), (RECV, pairs[::-1])):
                wanted = {(p, q): (n, n * WIDTH * 4 * REPEAT, REPEAT) for p, q, n in zip(me, peer, rows, strict=True)}
                assert counted(ranks, number, side, stage_number) == wanted
    assert num_messages > 0
    assert sum(rank.messages.shape[0] for rank in ranks) == 2 * num_messages


def counted(ranks: list[RankProfile], track: int, side: int, stage: int) -> dict[tuple[int, int], tuple[int, ...]]:
    found = {}
    for rank in ranks:
        for row in rank.messages:
            one = dict(zip(COLUMNS, row.tolist(), strict=True))
            if (one["track"], one["side"], one["stage"]) == (track, side, stage):
                found[rank.rank, one["peer"]] = (one["rows"], one["bytes"], one["count"])
    return found


def test_rows_leave_from_and_arrive_at_the_ends(recorded: Path) -> None:
    product, ranks = load_product(recorded / "plan"), load(recorded / "run")
    for rank in ranks:
        track, side, ends = columns([rank], "track", "side", "ends")
        into = int(ends[(track == 0) & (side == RECV)].sum())
        assert into == np.diff(product.gather.ghost_indptr)[rank.rank]
        out = int(ends[(track == 1) & (side == SEND)].sum())
        assert out == np.diff(product.scatter.ghost_indptr)[rank.rank]


def test_spans_are_in_order_and_inside_the_recording(recorded: Path) -> None:
    for rank in load(recorded / "run"):
        begin, end = rank.spans[:, 4], rank.spans[:, 5]
        offset = rank.meta["clock_offset_ns"]
        assert (begin <= end).all()
        assert begin.min() >= rank.meta["began_ns"] - offset
        assert end.max() <= rank.meta["ended_ns"] - offset
        kinds = rank.spans[:, 0]
        assert (kinds == Kind.RUN).sum() == 2 * REPEAT
        assert rank.meta["products"].keys() >= {"own", "in", "out"}
        assert all(one["times"] == REPEAT for one in rank.meta["products"].values())


def test_times_of_the_parts_fit_into_the_whole(recorded: Path) -> None:
    for rank in load(recorded / "run"):
        whole_ns = rank.meta["ended_ns"] - rank.meta["began_ns"]
        copy, wait = columns([rank], "copy_ns", "wait_ns")
        products_ns = sum(one["ns"] for one in rank.meta["products"].values())
        drain_ns = sum(track["drain_ns"] for track in rank.meta["tracks"])
        assert 0 < int(copy.sum() + wait.sum()) + products_ns + drain_ns <= whole_ns


def test_a_ring_keeps_the_latest_spans_and_totals_of_all() -> None:
    recorder = Recorder(0, 2, capacity=6)
    message = np.array([[0, 1, 1, 10, 10]])
    track = recorder.track(TrackFacts("gather", "forwards", "", 4, "float32", (16, 16)), message, message)
    for _ in range(50):
        run = track.begin()
        track.sent(0, run, clock(), clock(), 160)
        track.landed(0, run, 160)
    assert recorder.num_spans == 150
    assert [span[3] for span in recorder.spans] == [48, 48, 48, 49, 49, 49]
    assert track.table()[:, COLUMNS.index("bytes")].tolist() == [8000, 8000]


def test_nothing_is_recorded_outside_and_outer_recordings_come_back(tmp_path: Path) -> None:
    def nested(transport: LocalTransport) -> list[bool]:
        seen = [active() is None]
        with Profile.record(tmp_path / "outer", transport) as outer:
            with Profile.record(tmp_path / "inner", transport) as inner:
                seen.append(active() is inner.recorder)
            seen.append(active() is outer.recorder)
        return [*seen, active() is None]

    assert run_local(2, nested) == [[True] * 4] * 2


def test_profilers_are_told_of_products_runs_and_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told, opened = threading.local(), itertools.count()

    def start_range(message: str, domain: str) -> tuple[str, int]:
        handle = (message, next(opened))
        told.begun = [*getattr(told, "begun", []), handle]
        return handle

    def end_range(handle: tuple[str, int]) -> None:
        told.ended = [*getattr(told, "ended", []), handle]

    monkeypatch.setitem(sys.modules, "nvtx", SimpleNamespace(start_range=start_range, end_range=end_range))
    matrix, topology = read_matrix("rmat:7", dtype=np.float32), Topology.parse("uniform:2x1")
    layouts = partition_rows(matrix, topology, "block")

    def work(transport: LocalTransport) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
        own = layouts.rows.own_rows(transport.rank)
        rows = matrix[own.start : own.stop]
        with DistMatrix.from_rows(rows, layouts, topology, transport, strategy="direct") as product:
            with Profile.record(tmp_path / "run", transport, topology=topology, nvtx=True):
                product @ np.ones((len(own), 4), dtype=np.float32)
            product @ np.ones((len(own), 4), dtype=np.float32)
        return told.begun, told.ended

    for begun, ended in run_local(2, work):
        assert sorted(begun) == sorted(ended)
        names = [
            "gather forwards",
            "product in",
            "product out",
            "product own",
            "product via",
            "wait for gather forwards",
        ]
        assert sorted(name for name, _ in begun) == names


def test_without_the_package_there_are_no_ranges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nvtx", None)
    with pytest.raises(InputError, match="pip install nvtx"):
        run_local(2, lambda transport: Profile.record(tmp_path / "run", transport, nvtx=True))
    assert not (tmp_path / "run").exists()


def test_recordings_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "sparsecomm"):
        run_local(1, lambda transport: Profile.record(tmp_path / "run", transport).save())
    assert [record.getMessage().split(" to ")[0] for record in caplog.records] == [
        "rank 0 records",
        "rank 0 wrote 0 of 0 spans",
    ]


def test_a_rank_that_fails_still_writes_what_it_has(tmp_path: Path) -> None:
    def fail(transport: LocalTransport) -> None:
        with Profile.record(tmp_path / "run", transport) as profile, profile.recorder.product("own"):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_local(1, fail)
    assert load(tmp_path / "run")[0].meta["products"]["own"]["times"] == 1


def test_clocks_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = threading.local()
    monkeypatch.setattr(clocks, "clock", lambda: clock() + ahead.ns)

    def compare(transport: LocalTransport) -> int:
        ahead.ns = -transport.rank * 10**9
        return clocks.clock_offset_ns(transport)

    offsets = np.array(run_local(3, compare))
    assert np.abs(offsets - [0, -(10**9), -2 * 10**9]).max() < 10**8


def test_what_is_no_profile_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="was not written by sparsecomm"):
        run_local(2, lambda transport: Profile.record(tmp_path, transport))
    ran = sparsecomm("spmm", "grid2d:8", "-t", "uniform:2x1", "--transport", "local", "--profile", tmp_path)
    assert (ran.rc, ran.stdout) == (2, "")
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_lost_files_are_named(recorded: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    for file in (recorded / "run").iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    rank_file(path, 1).unlink()
    rank_file(path, 2).write_bytes(rank_file(path, 2).read_bytes()[:400])
    rank_file(path, 3).write_bytes(rank_file(path, 4).read_bytes())
    ranks, lost = load_ranks(path, load_header(path))
    assert len(ranks) == 12 - 3
    assert lost[1] == "missing"
    assert lost[2].startswith("damaged")
    assert lost[3].startswith("of another recording")


def test_a_long_run_says_how_it_goes_on() -> None:
    said: list[str] = []
    pace = Pace(said.append, 1000, {"node": 4_000_000, "network": 0}, 1.25)
    assert pace.line(10, 0.5) == "product 10 of 1,000: 50.0 ms each, node 80 MB/s, imbalance 1.25, 50 s left"
    pace.made(1)
    assert said == []
