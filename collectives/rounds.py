"""Rounds: the messages of a stage dealt out so that in each round a rank sends one at most and receives one at most."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sparsecomm.plan import RankPlan
from sparsecomm.table import Router, Table, number
from sparsecomm.typing import IntGlobal, IntRank


@dataclass(frozen=True, slots=True, eq=False)
class StageRounds:
    """The rounds of one rank's messages in a stage, int32, in the order of their peers.

    Args:
        send, recv: of what is sent and of what is received in a forward run. In reverse a message that was received
            is sent, in the same round.
    """

    send: IntRank
    recv: IntRank


def colour_messages(src: IntRank | IntGlobal, dst: IntRank | IntGlobal) -> IntRank:
    """Return the round of each message, (num_messages,) int32 from 0, as many rounds as the largest degree.

    Args:
        src, dst: (num_messages,) the ranks it goes from and to; no pair twice.

    Source: Konig 1916: the edges of a bipartite graph need as many colours as its largest degree.
    """
    if not src.size:
        return np.zeros(0, dtype=np.int32)
    from sparsecomm.collectives.rounds_loops import colour_edges  # here, because it loads numba

    left, right = number([src]), number([dst])
    degrees = [np.bincount(side) for side in (left, right)]
    return colour_edges(left, right, degrees[0].size, degrees[1].size, int(max(side.max() for side in degrees)))


def rounds_of(plan: RankPlan, router: Router) -> tuple[StageRounds, ...]:
    """Return the rounds of a rank's messages in every stage; rank 0 deals them out for all.

    Note: Collective over comm.
    """
    stages = [np.full(stage.send.num_messages, t, np.int32) for t, stage in enumerate(plan.stages)]
    none = np.zeros(0, dtype=np.int32)
    stage = np.concatenate([none, *stages])
    dst = np.concatenate([none, *(stage.send.peers for stage in plan.stages)])
    mine = Table(np.full_like(dst, plan.rank), {"stage": stage, "src": np.full_like(dst, plan.rank), "dst": dst})
    every = router.route(mine, np.zeros_like(dst)).sort("stage", "src", "dst")
    dealt = every.with_columns(round=_by_stage(every))
    sent, received = (
        router.route(dealt, dealt[end]).sort("stage", other) for end, other in (("src", "dst"), ("dst", "src"))
    )
    return tuple(
        StageRounds(*(side["round"][side["stage"] == t] for side in (sent, received))) for t in range(len(plan.stages))
    )


def _by_stage(messages: Table) -> IntRank:
    """Return the round of each message, given those of all ranks ordered by stage."""
    rounds = np.zeros(len(messages), dtype=np.int32)
    bounds = np.searchsorted(messages["stage"], np.arange(int(messages["stage"].max(initial=-1)) + 2))
    for begin, end in pairwise(bounds.tolist()):
        rounds[begin:end] = colour_messages(messages["src"][begin:end], messages["dst"][begin:end])
    return rounds
