"""Timing rows between GPUs of a job, by every transport that can be had there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import numpy as np

from sparsecomm.arrays import check_gpu, current_stream, device_module, use_gpu
from sparsecomm.calibration import Point, fit_link
from sparsecomm.collectives.device_graphs import Graphs
from sparsecomm.collectives.device_levels import DeviceLevels, LevelGather
from sparsecomm.collectives.device_links import DeviceLinks
from sparsecomm.collectives.pairs import partners, repeated_s
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.collectives.transport.ipc import first_refusal
from sparsecomm.cost import Link
from sparsecomm.errors import InputError
from sparsecomm.plan import Messages, RankPlan, RankStage
from sparsecomm.topology import Topology
from sparsecomm.typing import IntRank

_WIDTH: Final = 64  # of float32: rows of 256 bytes


def measure_gpus(
    transport: Transport, topology: Topology, sizes: Sequence[int], say: Callable[[str], object]
) -> dict[str, dict[str, Link]]:
    """Return, for every level and each transport of rows on GPUs that can be had there, what rows cost.

    Args:
        transport: over the ranks.
        topology: of the job.
        sizes: bytes of the messages that are timed; those of less than a row are left out.
        say: told what is timed, or why nothing is.

    Returns:
        The same on every rank; nothing where some rank has no GPU.

    Note: Collective over comm.
    """
    why = first_refusal(_no_gpu(), transport)
    if why:
        say(f"rows on GPUs are not timed: {why}")
        return {}
    node = topology.rank_to_node
    use_gpu(int(np.count_nonzero(node[: transport.rank] == node[transport.rank])))
    links = DeviceLinks(transport, "auto", topology.num_levels)
    found: dict[str, dict[str, Link]] = {}
    for number, level in enumerate(topology.levels):
        names = links.usable(_pair(transport.rank, partners(topology, number)[0], number, 1), number)
        points = {name: _points(transport, topology, number, links, name, sizes, say) for name in names}
        made = {name: fit_link(measured) for name, measured in points.items() if measured}
        found |= {level.name: made} if made else {}
    links.close()
    return found


def _no_gpu() -> str:
    try:
        check_gpu()
    except InputError as err:
        return str(err)
    return ""


def _points(
    transport: Transport,
    topology: Topology,
    level: int,
    links: DeviceLinks,
    name: str,
    sizes: Sequence[int],
    say: Callable[[str], object],
) -> list[Point]:
    """Time one lane of each pair of groups, and all lanes."""
    peer, lane, most = partners(topology, level)
    say(f"timing rows on GPUs at level {topology.levels[level].name}, {name}")
    points = []
    for lanes in sorted({1, most} if most else set()):
        active = np.where((lane >= 0) & (lane < lanes), peer, -1).astype(np.int32)
        for num_rows in sorted({size // (4 * _WIDTH) for size in sizes} - {0}):
            plan = _pair(transport.rank, active, level, num_rows)
            names = [name] * topology.num_levels
            seconds = _swap_s(transport, plan, links, names, active[transport.rank] >= 0)
            points.append(Point(lanes, 1, 4 * _WIDTH * num_rows, seconds))
    return points


def _swap_s(transport: Transport, plan: RankPlan, links: DeviceLinks, names: Sequence[str], active: bool) -> float:
    levels = DeviceLevels(plan, transport, links, names, _WIDTH, np.dtype(np.float32), False, Graphs())
    seconds = repeated_s(transport, partial(_runs, levels, plan.num_own, active))
    levels.close()
    return seconds


def _runs(levels: DeviceLevels, num_own: int, active: bool, runs: int) -> None:
    gather, x = LevelGather(levels), device_module().empty((num_own, _WIDTH), np.float32)
    for _ in range(runs if active else 0):
        gather.pack(x)
        gather.start()
        gather.wait()
    current_stream().synchronize()


def _pair(rank: int, peer: IntRank, level: int, num_rows: int) -> RankPlan:
    """Return the part of `rank` in a plan in which partners send each other all their rows."""
    partner = int(peer[rank])
    number = num_rows if partner >= 0 else 0
    slots, to = np.arange(num_rows, dtype=np.int32)[:number], np.full(number, partner, dtype=np.int32)
    ghosts, none = partner * num_rows + slots.astype(np.int64), np.empty(0, dtype=np.int64)
    stage = RankStage(level, Messages.of(to, slots), Messages.of(to, slots + num_rows))
    return RankPlan(rank, rank * num_rows, num_rows, ghosts, none, (stage,))
