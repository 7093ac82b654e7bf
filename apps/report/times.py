"""Seconds of a recorded run: per level, per stage, and of the parts of a product."""

from __future__ import annotations

import numpy as np

from sparsecomm.apps.report.case import Case
from sparsecomm.apps.report.transfers import Transfers
from sparsecomm.apps.summary import Json
from sparsecomm.profile import COLUMNS, RECV, SEND
from sparsecomm.typing import Floats, IntGlobal

PARTS = ("product", "pack", "send", "wait", "unpack", "drain")
_NS = 1e-9


def level_times(case: Case, transfers: Transfers) -> dict[int, Json]:
    """Return, for every level at which messages were matched, how fast they were.

    `bandwidth_Bps` is the bytes into or out of the busiest rank over the time from the first message that was sent to
    the last that came, the median over the runs of all tracks: what an algorithm that waits for the whole level sees.
    """
    found = {}
    for level in np.unique(transfers.level):
        pick = transfers.level == level
        seconds, num_bytes = _runs(transfers, pick, case.topology.num_ranks)
        ns = transfers.ns[pick]
        found[int(level)] = {
            "seconds": float(np.median(seconds)),
            "bandwidth_Bps": float(np.median(num_bytes / seconds)),
            "message_s": {"median": float(np.median(ns)) * _NS, "max": float(ns.max()) * _NS},
            "messages_seen": int(pick.sum()),
        }
    return found


def _runs(transfers: Transfers, pick: np.ndarray, num_ranks: int) -> tuple[Floats, Floats]:
    """Return seconds, and bytes of the busiest rank, of every run of every track."""
    key = transfers.track[pick] * (transfers.run.max() + 1) + transfers.run[pick]
    _, run = np.unique(key, return_inverse=True)
    num_runs = int(run.max()) + 1
    first, last = np.full(num_runs, np.inf), np.full(num_runs, -np.inf)
    np.minimum.at(first, run, transfers.begin[pick])
    np.maximum.at(last, run, transfers.end[pick])
    sums = [
        np.bincount(run * num_ranks + side[pick], transfers.num_bytes[pick], num_runs * num_ranks)
        for side in (transfers.src, transfers.dst)
    ]
    busiest = np.maximum(*sums).reshape(num_runs, num_ranks).max(axis=1)
    return np.maximum(last - first, 1) * _NS, busiest


def stage_times(case: Case, transfers: Transfers, part: int, stage: int) -> Json | None:
    """Return the seconds that all ranks together spend on a stage in one product, and how long its messages take."""
    if case.kind != "run":
        return None
    runs = max(case.times, 1)
    sums = np.zeros((2, 2))
    for rank in case.ranks:
        table = rank.messages
        mine = table[(table[:, 0] == part) & (table[:, COLUMNS.index("stage")] == stage)]
        for side in (SEND, RECV):
            sums[side] += mine[mine[:, 1] == side][:, -2:].sum(axis=0)
    pick = (transfers.track == part) & (transfers.stage == stage)
    return {
        "pack_s": sums[SEND, 0] * _NS / runs,
        "send_s": sums[SEND, 1] * _NS / runs,
        "unpack_s": sums[RECV, 0] * _NS / runs,
        "wait_s": sums[RECV, 1] * _NS / runs,
        "transfer_s": float(np.median(transfers.ns[pick])) * _NS if pick.any() else None,
    }


def part_times(case: Case) -> Json:
    """Return the seconds of one product by what they went into, the mean and the most over the ranks, and the overlap.

    `exposed_s` is the time in which a rank did nothing but communicate; `under_way_s` that in which a run of it was
    under way; what is left of their quotient is `overlap`.
    """
    runs = max(case.times, 1)
    table = rank_times(case) / runs
    under_way = np.array([sum(track["run_ns"] for track in rank.meta["tracks"]) for rank in case.ranks]) * _NS / runs
    blocked = np.array([sum(track["blocked_ns"] for track in rank.meta["tracks"]) for rank in case.ranks]) * _NS / runs
    total = float(under_way.sum())
    return {
        "mean_s": dict(zip(PARTS, table.mean(axis=0).tolist(), strict=True)),
        "max_s": dict(zip(PARTS, table.max(axis=0).tolist(), strict=True)),
        "exposed_s": {"mean": float(blocked.mean()), "max": float(blocked.max())},
        "under_way_s": {"mean": float(under_way.mean()), "max": float(under_way.max())},
        "overlap": 1 - float(blocked.sum()) / total if total else None,
    }


def rank_times(case: Case) -> Floats:
    """Return (num_found_ranks, len(PARTS)) seconds of the whole recording."""
    return np.array([_parts_ns(rank.messages, rank.meta) for rank in case.ranks]) * _NS


def _parts_ns(messages: IntGlobal, meta: Json) -> list[int]:
    sides = [messages[messages[:, 1] == side][:, -2:].sum(axis=0).tolist() for side in (SEND, RECV)]
    (pack, send), (unpack, wait) = sides
    product = sum(one["ns"] for one in meta["products"].values())
    return [product, pack, send, wait, unpack, sum(track["drain_ns"] for track in meta["tracks"])]
