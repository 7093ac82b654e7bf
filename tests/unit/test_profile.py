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


@pytest.mark.parametrize("seed", range(8))
def test_sums_made_later_are_those_made_at_once(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, now = np.random.default_rng(seed), itertools.count(1)
    for module in ("recorder", "track"):
        monkeypatch.setattr(f"sparsecomm.profile.{module}.clock", lambda: next(now))
    recorder, wanted = Recorder(0, 2), Replay()
    messages = np.array([[0, 1, 1, 10, 10]] * 3)
    tracks = [recorder.track(TrackFacts(name, "", "", 4, "float32", (16,)), messages, messages) for name in "ab"]
    begun, chunks = [next(now), next(now)], None
    for _ in range(300):
        number, index, run = (int(one) for one in rng.integers((2, 3, 9)))
        track, began = tracks[number], next(now)
        match rng.integers(8):
            case 0:
                packed = next(now)
                track.sent(index, run, began, packed, 7)
                wanted.sent(number, index, run, began, packed, packed + 1)
            case 1:
                track.landed(index, run, 9)
                wanted.landed(number, index, run, began + 1)
            case 2:
                track.unpacked(index, run, began)
                wanted.unpacked(number, index, run, began, began + 1)
            case 3 if wanted.waits_for is None:
                track.block()
                wanted.block(number, began + 1)
                track.unblock(run, begun[number])
                wanted.done(number, run, begun[number], began + 2)
                begun[number] = next(now)
            case 4 if wanted.waits_for == number:
                track.unblock(run, begun[number])
                wanted.done(number, run, begun[number], began + 1)
            case 5 if wanted.waits_for is None:
                track.block()
                wanted.block(number, began + 1)
            case 6 if chunks is None:
                chunks, wanted.moved = recorder.chunks("own", iter([None])), 0
                wanted.opened = began + 1
            case 6:
                assert chunks is not None
                assert list(chunks) == [None]
                wanted.made(began + 1)
                chunks = None
            case 7 if chunks is None:
                recorder.digest()
    assert recorder.spans.tolist() == wanted.spans
    found = np.concatenate([track.table()[:, 7:] for track in tracks])
    assert found.tolist() == wanted.totals.reshape(-1, 4).tolist()
    assert [(one.run_ns, one.blocked_ns, one.drain_ns) for one in tracks] == [tuple(one) for one in wanted.whole]
    assert recorder.products == ({"own": tuple(wanted.products)} if wanted.products[0] else {})


class Replay:
    """Sums up one event after the other, as it happens."""

    def __init__(self) -> None:
        self.spans: list[list[int]] = []
        self.totals = np.zeros((2, 2, 3, 4), dtype=np.int64)  # track, side, message; count, bytes, copy, wait
        self.whole = [[0, 0, 0], [0, 0, 0]]  # run, blocked, drain
        self.waits_for: int | None = None
        self.idle = self.blocked = 0
        self.products, self.opened, self.moved = [0, 0], 0, 0

    def sent(self, track: int, index: int, run: int, began: int, packed: int, now: int) -> None:
        self.totals[track, SEND, index] += (1, 7, packed - began, now - packed)
        self.spans += [[Kind.PACK, track, index, run, began, packed], [Kind.POST, track, index, run, packed, now]]
        self.move(now - began, now)

    def landed(self, track: int, index: int, run: int, now: int) -> None:
        since = now if self.waits_for is None else self.idle
        self.totals[track, RECV, index] += (1, 9, 0, now - since)
        self.spans += [[Kind.WAIT, track, index, run, since, now]] if self.waits_for is not None else []
        self.spans += [[Kind.LAND, track, index, run, now, now]]
        self.move(0, now)

    def unpacked(self, track: int, index: int, run: int, began: int, now: int) -> None:
        self.totals[track, RECV, index, 2] += now - began
        self.spans += [[Kind.UNPACK, track, index, run, began, now]]
        self.move(now - began, now)

    def block(self, track: int, now: int) -> None:
        self.waits_for, self.idle, self.blocked = track, now, now

    def done(self, track: int, run: int, began: int, now: int) -> None:
        for place, one in enumerate((began, self.blocked, self.idle)):
            self.whole[track][place] += now - one
        self.waits_for = None
        self.spans += [[Kind.DRAIN, track, -1, run, self.idle, now], [Kind.RUN, track, -1, run, began, now]]

    def made(self, now: int) -> None:
        self.spans += [[Kind.PRODUCT, -1, 0, self.products[0], self.opened, now]]
        self.products = [self.products[0] + 1, self.products[1] + now - self.opened - self.moved]
        self.idle = now

    def move(self, spent: int, now: int) -> None:
        self.moved += spent
        self.idle = now


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
    assert np.abs(offsets - [0, -(10**9), -2 * 10**9]).max() < 5 * 10**8


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
