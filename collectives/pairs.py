"""Timing messages between chosen ranks of a job, through the channels that exchanges use."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from sparsecomm.calibration import Point
from sparsecomm.collectives.transport.base import Channel, MessageBuffer, Transport
from sparsecomm.collectives.transport.waits import Wait, Waiting
from sparsecomm.topology import Topology
from sparsecomm.typing import IntRank

SIZES: Final = (*(8 * 4**step for step in range(10)), 1 << 23, 1 << 24)
"""Bytes of a message, 8 B to 16 MB, log-spaced."""

_SECONDS: Final = 0.03  # of the runs that make one time
_TIMES: Final = 5
_MOST_RUNS: Final = 200
_MOST_PEERS: Final = 16


def measure_level(transport: Transport, topology: Topology, level: int, sizes: Sequence[int] = SIZES) -> list[Point]:
    """Time messages between the groups inside a level: one lane of each pair of groups, all lanes, and all peers.

    Returns:
        The same on every rank; nothing where no two groups meet at this level.

    Note: Collective over comm.
    """
    peer, lane, most = partners(topology, level)
    if most == 0:
        return []
    points = []
    for lanes in sorted({1, most}):
        mine = [int(peer[transport.rank])] if 0 <= lane[transport.rank] < lanes else []
        points += [Point(lanes, 1, size, exchange_s(transport, mine, size)) for size in sizes]
    others = _others(topology, level, transport.rank)
    messages = int(transport.reduce(np.array([len(others)], dtype=np.int64), "max")[0])
    if messages > 1:
        points += [Point(most, messages, size, exchange_s(transport, others, size)) for size in sizes[:5]]
    return points


def exchange_s(transport: Transport, peers: Sequence[int], num_bytes: int) -> float:
    """Return the seconds in which every rank sends `num_bytes` to each of its peers and receives as much.

    Args:
        transport: over all ranks.
        peers: of this rank, who have it among theirs; none where it only waits.
        num_bytes: of each message, the same on all ranks.

    Returns:
        The median of several times, each that of the slowest rank.

    Note: Collective over comm.
    """
    sends, recvs = ([MessageBuffer(p, 0, np.zeros(num_bytes, dtype=np.uint8)) for p in peers] for _ in range(2))
    channel = transport.open(sends, recvs)
    wait = Wait(transport.watch, lambda: Waiting("a calibration"))

    def act(runs: int) -> None:
        for _ in range(runs if peers else 0):
            _run(channel, wait, len(peers))

    seconds = repeated_s(transport, act)
    channel.close()
    return seconds


def repeated_s(transport: Transport, act: Callable[[int], None]) -> float:
    """Return the seconds of one of the runs that `act` makes as many of as it is told.

    Returns:
        The median of several times, each that of the slowest rank.

    Note: Collective over comm.
    """
    first = _slowest(transport, act, 2)
    runs = int(np.clip(_SECONDS / max(first, 1e-9), 2, _MOST_RUNS))
    return float(np.median([_slowest(transport, act, runs) for _ in range(_TIMES)]))


def _slowest(transport: Transport, act: Callable[[int], None], runs: int) -> float:
    transport.barrier()
    begin = time.perf_counter()
    act(runs)
    seconds = np.array([(time.perf_counter() - begin) / runs])
    return float(transport.reduce(seconds, "max")[0])


def _run(channel: Channel, wait: Wait, num_peers: int) -> None:
    channel.start()
    for index in range(num_peers):
        channel.post(index)
    missing = num_peers
    while missing:
        missing -= len(channel.wait(wait))
    channel.finish(wait)


def partners(topology: Topology, level: int) -> tuple[IntRank, IntRank, int]:
    """Pair the groups just below `level`, the first with the second and so on, lane by lane.

    Returns:
        (num_ranks,) the partner of every rank and its lane, -1 where it has none; and the most lanes of a pair.
    """
    child, outer = topology.group_of(level - 1), topology.group_of(level)
    peer = np.full(topology.num_ranks, -1, dtype=np.int32)
    lane = np.full(topology.num_ranks, -1, dtype=np.int32)
    most = 0
    for group in range(topology.num_groups(level)):
        members = [np.flatnonzero(child == one) for one in np.unique(child[outer == group])]
        for left, right in zip(members[::2], members[1::2], strict=False):
            lanes = min(left.size, right.size)
            peer[left[:lanes]], peer[right[:lanes]] = right[:lanes], left[:lanes]
            lane[left[:lanes]] = lane[right[:lanes]] = np.arange(lanes)
            most = max(most, lanes)
    return peer, lane, most


def _others(topology: Topology, level: int, rank: int) -> list[int]:
    """Return ranks that meet this one at `level`, near ones first, each other's by construction."""
    ranks = np.arange(topology.num_ranks, dtype=np.int32)
    near = np.abs(ranks - rank) <= _MOST_PEERS // 2
    at_level = topology.level_of(np.full_like(ranks, rank), ranks) == level
    return [int(other) for other in np.flatnonzero(at_level & near) if other != rank]
