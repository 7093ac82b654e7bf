"""The physical links of a topology, and how long a plan keeps them busy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from sparsecomm.plan import Plan
from sparsecomm.topology import Topology
from sparsecomm.typing import IntRank

MAX_RANKS: Final = 256
"""Most ranks whose pairs are listed one by one."""

_LONGEST: Final = 4  # links of a path: out of a rank, out of its group, into the other group, into the other rank


@dataclass(frozen=True, slots=True, eq=False)
class Links:
    """One-way links, and those that a copy from rank to rank occupies, all at the same time.

    A copy between ranks with a direct link takes that alone. Any other takes, at its level, a port of either rank and
    the ports of the groups that it leaves and enters; at the innermost level the ports of the ranks, and one port to
    that peer.

    Args:
        Bps: (num_links,) float64, bytes per second.
        path: (num_ranks, num_ranks, 4) int32, the links of a copy, -1 where there are fewer.
    """

    Bps: npt.NDArray[np.float64]
    path: IntRank

    @staticmethod
    def of(topology: Topology) -> Links:
        """Lay out the links of a topology of at most `MAX_RANKS` ranks."""
        ranks = np.arange(topology.num_ranks, dtype=np.int32)
        level = topology.level_of(ranks[:, None], ranks)
        path = np.full((*level.shape, _LONGEST), -1, dtype=np.int32)
        speeds: list[npt.NDArray[np.float64]] = []
        for number, link in enumerate(topology.levels):
            mine = level == number
            ends = _ends(topology, number)
            for place, (out, count, ports) in enumerate(ends):
                first = sum(map(len, speeds))
                path[..., place] = np.where(mine, first + out, path[..., place])
                speeds.append(np.full(count, ports * link.bandwidth_Bps))
        first = sum(map(len, speeds))
        src, dst = topology.links.T
        for one, other, side in ((src, dst, 0), (dst, src, src.size)):
            path[one, other] = -1
            path[one, other, 0] = first + side + np.arange(src.size)
        speeds += [topology.link_Bps, topology.link_Bps]
        return Links(np.concatenate(speeds), path)

    def seconds(self, plan: Plan, row_bytes: int) -> float:
        """Return how long the rows of a plan keep the links busy, latencies left aside.

        Copies before which the row has been copied equally often go at the same time, as long as their busiest link;
        then come those that wait for them.
        """
        depth = np.zeros(int(plan.held_start()[-1]) + 1, dtype=np.int64)  # the last entry stands for all own rows
        loads: dict[int, npt.NDArray[np.float64]] = {}
        for stage in plan.stages:
            before = depth[plan.held_place(stage.src, stage.send)]
            depth[plan.held_place(stage.dst, stage.recv)] = before + 1
            for step in np.unique(before).tolist():
                path = self.path[stage.src[before == step], stage.dst[before == step]]
                rows = np.bincount(path[path >= 0], minlength=self.Bps.size)
                loads[step] = loads.get(step, 0.0) + rows * row_bytes / self.Bps
        return float(sum(load.max() for load in loads.values()))


def _ends(topology: Topology, level: int) -> list[tuple[npt.NDArray[np.integer], int, int]]:
    """Return for each link of a path at `level`: its number from rank to rank, how many there are, and their ports."""
    num_ranks, ports = topology.num_ranks, topology.levels[level].ports
    rank = np.arange(num_ranks)
    if level == 0:
        pair = rank[:, None] * num_ranks + rank
        return [(pair, num_ranks**2, 1), (rank[:, None], num_ranks, ports), (rank, num_ranks, ports)]
    group, count = topology.group_of(level - 1), topology.num_groups(level - 1)
    return [
        (rank[:, None], num_ranks, 1),
        (group[:, None], count, ports),
        (group, count, ports),
        (rank, num_ranks, 1),
    ]
