"""Whether all ranks were given parts of the same exchange, asked before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from sparsecomm.collectives.transport.base import Transport, agreed
from sparsecomm.collectives.wire import RowFormat
from sparsecomm.errors import InputError, PlanError
from sparsecomm.hashing import hash_rows
from sparsecomm.plan import Messages, RankPlan
from sparsecomm.table import Table, run_starts
from sparsecomm.typing import IntGlobal

DEBUG: Final = "SPARSECOMM_DEBUG"  # set to anything, every call of an exchange is compared between the ranks

_NOUNS = ("rows", "columns", "bytes a row", "level", "depth", "as the hash of the rows")


def check_arguments(plan: RankPlan, transport: Transport, depth: int) -> None:
    """Raise unless the plan is this rank's, among ranks that there are, and `depth` a number of buffer sets."""
    if plan.rank != transport.rank:
        raise PlanError(f"rank {transport.rank} was given the plan of rank {plan.rank}")
    if isinstance(depth, bool) or not isinstance(depth, int | np.integer) or depth < 1:
        raise InputError(f"depth must be a whole number of buffer sets, at least 1, not {depth!r}")
    peers = [side.peers for stage in plan.stages for side in (stage.send, stage.recv) if side.num_messages]
    worst = max((int(numbers[-1]) for numbers in peers), default=0)
    if worst >= transport.num_ranks:
        raise PlanError(f"the plan speaks to rank {worst}, but there are only {transport.num_ranks} ranks")


def check_same(transport: Transport, facts: Mapping[str, object]) -> None:
    """Compare what all ranks must have been given alike.

    Raises:
        PlanError: on all ranks, naming the first difference.

    Note: Collective over comm.
    """
    first = transport.bcast(facts)
    agreed(transport, lambda: _compare_facts(first, facts))


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
    """Return (num_messages, 8) int64: stage, peer, rows, width, bytes a row, level, depth, hash of the global rows."""
    parts = [np.zeros((0, 8), dtype=np.int64)]
    for number, stage in enumerate(plan.stages):
        side: Messages = stage.send if send else stage.recv
        part = np.empty((side.num_messages, 8), dtype=np.int64)
        part[:, 0], part[:, 1], part[:, 2] = number, side.peers, np.diff(side.indptr)
        part[:, 3:7] = form.width, form.row_bytes[stage.level], stage.level, depth
        part[:, 7] = _hashes(plan.rows_at(side.slots), side.indptr)
        parts.append(part)
    return np.concatenate(parts)


def _hashes(rows: IntGlobal, indptr: IntGlobal) -> IntGlobal:
    """Return a hash of the rows of each message, in their order."""
    place = np.arange(rows.size) - np.repeat(indptr[:-1], np.diff(indptr))
    sums = np.concatenate([[np.uint64(0)], np.cumsum(hash_rows([place, rows]), dtype=np.uint64)])
    hashes = sums[indptr[1:]] - sums[indptr[:-1]]
    return np.asarray(hashes.view(np.int64))


class Calls:
    """Compares every call of an exchange between the ranks before it is made; for finding where programs part.

    Args:
        transport: of the exchange.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport, self._num_calls = transport, 0

    def agree(self, call: str) -> None:
        """Say which call comes now.

        Raises:
            PlanError: on all ranks, when another rank makes another one.

        Note: Collective over comm.
        """
        self._num_calls += 1
        facts = {f"call {self._num_calls}": call}
        first = self._transport.bcast(facts)
        agreed(self._transport, lambda: _compare_calls(first, facts))


def _compare_calls(first: Mapping[str, str], facts: Mapping[str, str]) -> None:
    if first != facts:
        (here, call), (there, other) = *facts.items(), *first.items()
        raise PlanError(f"{here} is the {call}, but on rank 0 {there} is the {other}")


def _compare_facts(first: Mapping[str, object], facts: Mapping[str, object]) -> None:
    different = [name for name in first if first[name] != facts[name]]
    if different:
        name = different[0]
        raise PlanError(f"the exchange was made with {name} {facts[name]}, on rank 0 with {first[name]}")


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
