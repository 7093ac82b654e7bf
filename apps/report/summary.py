"""The JSON object of `sparsecomm report`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

import numpy as np

from sparsecomm.apps.report.case import Case
from sparsecomm.apps.report.times import level_times, part_times, stage_times
from sparsecomm.apps.report.transfers import Transfers, match
from sparsecomm.apps.report.words import in_words
from sparsecomm.apps.summary import Json
from sparsecomm.cost import Estimate, imbalance
from sparsecomm.table import run_starts, sort_order
from sparsecomm.traffic import Traffic
from sparsecomm.typing import IntGlobal
from sparsecomm.volume import Volume

SCHEMA: Final = "sparsecomm.report/1"
_SHOWN: Final = 10  # busiest ranks and links
NAIVE: Final = "direct"


def summarise(case: Case, transfers: Transfers | None = None) -> Json:
    """Return what there is to say of a plan or a run.

    Args:
        case: it.
        transfers: of the run, if they have been matched already.
    """
    transfers = match(case.ranks) if transfers is None else transfers
    volume = case.traffic.volume(case.topology, in_turn=case.in_turn)
    estimate = case.model.estimate(volume, case.width, case.row_bytes // case.width)
    report: Json = {
        "schema": SCHEMA,
        "kind": case.kind,
        "name": case.path.name,
        "missing": {str(rank): why for rank, why in case.lost.items()},
        "products": case.times,
        "matrix": case.report.get("matrix"),
        "topology": topology_json(case),
        "partition": case.report.get("partition"),
        "width": case.width,
        "dtype": case.dtype,
        "strategy": case.report.get("chosen"),
        "strategies": case.report.get("strategies"),
        "calibrated": case.calibration.host if case.calibration else None,
        "levels": _levels(case, volume, estimate, transfers),
        "stages": _stages(case, transfers),
        "busiest_ranks": _busiest_ranks(case),
        "busiest_links": _busiest_links(case),
        "planned": _planned(case),
        "saved": _saved(case, volume),
        "bounds": _bounds(case, volume),
        "time": _time(case, estimate),
    }
    return report | {"words": in_words(report)}


def topology_json(case: Case) -> Json:
    topology = case.topology
    levels = [asdict(level) | {"groups": topology.num_groups(n)} for n, level in enumerate(topology.levels)]
    return {"name": topology.name, "ranks": topology.num_ranks, "nodes": topology.num_nodes, "levels": levels}


def _levels(case: Case, volume: Volume, estimate: Estimate, transfers: Transfers) -> Json:
    topology, traffic = case.topology, case.traffic
    loaded = traffic.by_level(topology, loaded_bytes(case))
    num_bytes, sizes = traffic.by_level(topology, traffic.num_bytes), traffic.num_bytes // np.maximum(traffic.count, 1)
    busy = np.maximum(*(traffic.by_rank(topology, traffic.num_bytes, side) for side in ("src", "dst")))
    measured = level_times(case, transfers)
    found = {}
    for number, level in enumerate(topology.levels):
        found[level.name] = {
            "rows": int(volume.rows[number]),
            "bytes": int(num_bytes[number]),
            "bytes_loaded": int(loaded[number]),
            "messages": int(volume.messages[number]),
            "max_rank_bytes": int(busy[number].max()),
            "mean_rank_bytes": float(busy[number].mean()),
            "imbalance": imbalance(busy[number].astype(np.int64)),
            "max_group_rows": {"in": int(volume.max_group_in[number]), "out": int(volume.max_group_out[number])},
            "message_bytes": _spread(sizes[traffic.level == number]),
            "latency_s": case.model.link(number).latency_s,
            "peak_Bps": case.model.link(number).rank_Bps,
            "predicted_s": estimate.levels_s[number],
            "measured": measured.get(number),
        }
    return found


def _spread(values: IntGlobal) -> Json | None:
    if not values.size:
        return None
    return {"min": int(values.min()), "median": float(np.median(values)), "max": int(values.max())}


def _stages(case: Case, transfers: Transfers) -> list[Json]:
    traffic, found = case.traffic, []
    for part, stage, level in stages_of(case):
        one = traffic.take((traffic.part == part) & (traffic.stage == stage))
        busy = np.maximum(*(one.by_rank(case.topology, one.num_bytes, side)[level] for side in ("src", "dst")))
        found.append(
            {
                "part": case.parts[part],
                "stage": stage,
                "level": case.topology.level_names[level],
                "rows": int(one.all_rows.sum()),
                "bytes": int(one.num_bytes.sum()),
                "messages": int(one.count.sum()),
                "busiest_rank": int(busy.argmax()),
                "busiest_rank_bytes": int(busy.max()),
                "measured": stage_times(case, transfers, part, stage),
            }
        )
    return found


def stages_of(case: Case) -> list[tuple[int, int, int]]:
    """Return (part, stage, level) of every stage that moves anything, in the order in which they run."""
    return sorted(case.traffic.stages(), key=lambda one: (one[0], -one[1] if case.in_reverse(one[0]) else one[1]))


def _busiest_ranks(case: Case) -> list[Json]:
    topology, traffic = case.topology, case.traffic
    bytes_in, bytes_out = (traffic.by_rank(topology, traffic.num_bytes, side) for side in ("dst", "src"))
    num_in, num_out = (traffic.by_rank(topology, traffic.count, side).sum(axis=0) for side in ("dst", "src"))
    order = np.argsort(-np.maximum(bytes_in[-1], bytes_out[-1]), kind="stable")[:_SHOWN].tolist()
    return [
        {
            "rank": rank,
            "node": int(topology.rank_to_node[rank]),
            "bytes_in": int(bytes_in[:, rank].sum()),
            "bytes_out": int(bytes_out[:, rank].sum()),
            "network_bytes_in": int(bytes_in[-1, rank]),
            "network_bytes_out": int(bytes_out[-1, rank]),
            "messages_in": int(num_in[rank]),
            "messages_out": int(num_out[rank]),
        }
        for rank in order
    ]


def _busiest_links(case: Case) -> list[Json]:
    """Return the pairs of nodes between which most bytes go, and how many messages carry them."""
    topology, traffic = case.topology, case.traffic
    one = traffic.take(traffic.level == topology.num_levels - 1)
    src, dst = topology.rank_to_node[one.src], topology.rank_to_node[one.dst]
    along = sort_order([src, dst])
    src, dst = src[along], dst[along]
    starts = np.flatnonzero(run_starts([src, dst]))
    sums = {name: np.add.reduceat(weight[along], starts) for name, weight in _weights(one).items()}
    order = np.argsort(-sums["bytes"], kind="stable")[:_SHOWN].tolist()
    return [
        {"src_node": int(src[starts[i]]), "dst_node": int(dst[starts[i]])}
        | {name: int(values[i]) for name, values in sums.items()}
        for i in order
    ]


def loaded_bytes(case: Case) -> IntGlobal:
    """Return (num_messages,) int64: what each message would carry if its receiver did not read it where it lies."""
    traffic = case.traffic
    return np.where(traffic.num_bytes == 0, traffic.all_rows * case.row_bytes, 0)


def _weights(traffic: Traffic) -> dict[str, IntGlobal]:
    return {"rows": traffic.all_rows, "bytes": traffic.num_bytes, "messages": traffic.count}


def _planned(case: Case) -> Json | None:
    """Hold what moved against what the strategy was to move."""
    entry = (case.report.get("strategies") or {}).get(case.report.get("chosen"))
    if case.kind != "run" or entry is None or not case.times or not case.whole:
        return None
    names, traffic = case.topology.level_names, case.traffic
    weights = _weights(traffic) | {"bytes": traffic.num_bytes + loaded_bytes(case)}
    moved = {
        noun: dict(zip(names, map(int, traffic.by_level(case.topology, weight)), strict=True))
        for noun, weight in weights.items()
    }
    planned = {noun: entry[noun] for noun in moved}
    return {"planned": planned, "executed": moved, "equal": moved == planned}


def _saved(case: Case, volume: Volume) -> Json | None:
    naive = (case.report.get("strategies") or {}).get(NAIVE)
    if naive is None or not case.times:
        return None
    network = case.topology.level_names[-1]
    before, now = naive["rows"][network], int(volume.rows[-1])
    share = 1 - now / before if before else 0.0
    return {"naive": NAIVE, "level": network, "naive_rows": before, "rows": now, "share": share}


def _bounds(case: Case, volume: Volume) -> Json | None:
    lower = case.report.get("lower_bound")
    if lower is None or not case.times:
        return None
    rows, bound = int(volume.rows[-1]), int(lower["network"])
    minimum = int(case.report["two_party_minimum"]["network"])
    return {"rows": rows, "lower_bound": bound, "two_party_minimum": minimum, "gap": rows / bound - 1 if bound else 0.0}


def _time(case: Case, estimate: Estimate) -> Json:
    entry: Json = (case.report.get("strategies") or {}).get(case.report.get("chosen")) or {}
    known: dict[str, Any] = {
        "predicted_s": entry.get("predicted_s"),
        "predicted_communication_s": estimate.communication_s,
        "measured_s": (case.report.get("time_s") or {}).get("median"),
    }
    return known | {"parts": part_times(case) if case.kind == "run" else None}
