"""When every rank of a plan is at work and when it waits, as the cost model has it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsecomm.apps.report.case import Case
from sparsecomm.apps.report.summary import stages_of
from sparsecomm.cost import Link
from sparsecomm.traffic import Traffic
from sparsecomm.typing import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One stage on all ranks.

    Args:
        part, stage, level: which one.
        begin_s: (num_ranks,) seconds, when each rank begins with it.
        busy_s: (num_ranks,) seconds that its own messages take.
        end_s: (num_ranks,) seconds, when it has all that comes to it.
    """

    part: int
    stage: int
    level: int
    begin_s: Floats
    busy_s: Floats
    end_s: Floats


def predicted_steps(case: Case) -> list[Step]:
    """Return the stages of one product in the order in which they run.

    The busiest rank of a stage takes what `CostModel.estimate` says of the stage, others their share of it. A rank goes
    on to its next stage when its own messages are through and all that come to it are.
    """
    now, steps = np.zeros(case.topology.num_ranks), []
    for part, stage, level in stages_of(case):
        one = case.traffic.take((case.traffic.part == part) & (case.traffic.stage == stage))
        busy = _busy_s(case, one, level)
        end = now + busy
        came = end.copy()
        np.maximum.at(came, one.dst, end[one.src])
        steps.append(Step(part, stage, level, now, busy, came))
        now = came
    return steps


def _busy_s(case: Case, traffic: Traffic, level: int) -> Floats:
    """Return (num_ranks,) seconds that the messages of one stage take each rank."""
    link = case.model.link(level)
    load = np.maximum(*(_load(case, traffic, level, side, link) for side in ("src", "dst")))
    whole = case.model.estimate(traffic.volume(case.topology), case.width, case.row_bytes // case.width)
    busy: Floats = load * whole.levels_s[level] / load.max()
    return busy


def _load(case: Case, traffic: Traffic, level: int, side: str, link: Link) -> Floats:
    """Return (num_ranks,) seconds for what leaves or comes: latency, and the slower of the ports of rank and group."""
    rows, messages = (
        traffic.by_rank(case.topology, weight, side)[level] for weight in (traffic.all_rows, traffic.count)
    )
    group = case.topology.group_of(level - 1)
    together = np.bincount(group, rows)[group] * (rows > 0)
    through = np.maximum(rows / link.rank_Bps, together / link.group_Bps)
    load: Floats = messages * link.latency_s + through * case.row_bytes
    return load
