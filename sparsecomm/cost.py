"""How long a product should take on a topology, before anything is built."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsecomm.topology import Topology
from sparsecomm.typing import IntGlobal
from sparsecomm.volume import Volume


@dataclass(frozen=True, slots=True)
class Estimate:
    """Predicted seconds of one product.

    Args:
        levels_s: communication at each level, inner to outer.
        pack_s: copying rows into and out of message buffers on the busiest rank.
        product_s: the local multiplication on the rank with most nonzeros.
    """

    levels_s: tuple[float, ...]
    pack_s: float
    product_s: float

    @property
    def communication_s(self) -> float:
        return sum(self.levels_s) + self.pack_s

    @property
    def total_s(self) -> float:
        return self.communication_s + self.product_s


@dataclass(frozen=True, slots=True)
class CostModel:
    """A postal model with port limits: stages one after the other, nothing hidden behind compute.

    Args:
        topology: latency, bandwidth and ports of every level.
        memory_Bps: bytes per second at which one rank reads and writes its memory.
    """

    topology: Topology
    memory_Bps: float = 10e9  # one core of a current server streaming from DRAM; assumed until calibrated

    def estimate(self, volume: Volume, width: int, itemsize: int, max_rank_nnz: int = 0) -> Estimate:
        """Return the time of a schedule that moves `volume`.

        Level l takes latency * messages of the busiest rank + the larger of (bytes of the busiest rank / bandwidth of
        a port) and (bytes of the busiest child group / bandwidth of all its ports).

        Args:
            volume: what moves, in rows.
            width: columns of X.
            itemsize: bytes of an entry on the wire.
            max_rank_nnz: nonzeros of the rank that has most.

        Source: max-rate model of Gropp, Olson, Samfass 2016, with one rate for each level of the tree.
        """
        row_bytes = width * itemsize
        levels = tuple(self._level(volume, level, row_bytes) for level in range(self.topology.num_levels))
        moved = int(volume.max_rank_rows.sum())
        # Every row is read and written once when packed and once when unpacked.
        pack = 4 * moved * row_bytes / self.memory_Bps
        return Estimate(levels, pack, self.product_s(max_rank_nnz, row_bytes, itemsize))

    def product_s(self, nnz: int, row_bytes: int, itemsize: int) -> float:
        """Return the time of a local product as bytes over bandwidth: each nonzero reads its value, index and row."""
        return nnz * (row_bytes + itemsize + 4) / self.memory_Bps

    def _level(self, volume: Volume, level: int, row_bytes: int) -> float:
        link = self.topology.levels[level]
        group = max(int(volume.max_group_in[level]), int(volume.max_group_out[level]))
        seconds_per_row = row_bytes / link.bandwidth_Bps
        transfer = max(int(volume.max_rank_rows[level]), group / link.ports) * seconds_per_row
        return int(volume.max_rank_messages[level]) * link.latency_s + transfer


def imbalance(loads: IntGlobal) -> float:
    """Return the largest load over the mean load; 1.0 where there is none."""
    mean = float(np.mean(loads)) if loads.size else 0.0
    return float(loads.max()) / mean if mean else 1.0
