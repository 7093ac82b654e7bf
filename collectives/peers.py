"""Whether what every rank will send is what its peers expect, asked before anything is sent."""

from __future__ import annotations

import numpy as np

from sparsecomm.collectives.buffers import RowFormat
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.errors import PlanError
from sparsecomm.plan import Messages, RankPlan
from sparsecomm.table import Table, run_starts
from sparsecomm.typing import IntGlobal

_NOUNS = ("rows", "columns", "bytes a row", "level", "depth")


def check_peers(plan: RankPlan, transport: Transport, form: RowFormat, depth: int) -> None:
    """Compare the sends of all ranks with the receives of their peers: one small row for each message.

    Raises:
        PlanError: this rank's receives are not what its peers send; other ranks may see nothing wrong.

    Note: Collective over comm.
    """
    sends, recvs = _described(plan, form, depth, send=True), _described(plan, form, depth, send=False)
    to_rank = sends[:, 1].astype(np.int32)
    sends[:, 1] = plan.rank
    table = Table(np.full(len(sends), plan.rank, dtype=np.int32), {"message": sends})
    sent = transport.route(table, to_rank)["message"]
    _compare(plan.rank, _sorted(sent), _sorted(recvs))


def _described(plan: RankPlan, form: RowFormat, depth: int, *, send: bool) -> IntGlobal:
    """Return (num_messages, 7) int64: stage, peer, rows, width, bytes a row, level, depth."""
    parts = [np.zeros((0, 7), dtype=np.int64)]
    for number, stage in enumerate(plan.stages):
        side: Messages = stage.send if send else stage.recv
        part = np.empty((side.num_messages, 7), dtype=np.int64)
        part[:, 0], part[:, 1], part[:, 2] = number, side.peers, np.diff(side.indptr)
        part[:, 3:] = form.width, form.row_bytes[stage.level], stage.level, depth
        parts.append(part)
    return np.concatenate(parts)


def _sorted(messages: IntGlobal) -> IntGlobal:
    return messages[np.lexsort((messages[:, 1], messages[:, 0]))]


def _compare(rank: int, sent: IntGlobal, expected: IntGlobal) -> None:
    if sent.shape == expected.shape and np.array_equal(sent, expected):
        return
    both = np.concatenate([sent, expected])
    places = both[np.lexsort((both[:, 1], both[:, 0]))][:, :2]
    for stage, peer in places[run_starts([places[:, 0], places[:, 1]])]:
        given, planned = (_texts(side, stage, peer) for side in (sent, expected))
        if given != planned:
            raise PlanError(f"stage {stage}: rank {peer} sends rank {rank} {given}, but the plan expects {planned}")


def _texts(messages: IntGlobal, stage: int, peer: int) -> str:
    found = messages[(messages[:, 0] == stage) & (messages[:, 1] == peer)][:, 2:]
    texts = [", ".join(f"{value} {noun}" for value, noun in zip(row, _NOUNS, strict=True)) for row in found]
    return " and ".join(texts) or "nothing"
