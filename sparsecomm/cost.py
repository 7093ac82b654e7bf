"""How long a product should take on a topology, before anything is built."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from sparsecomm.errors import InputError
from sparsecomm.topology import Device, Level, Topology
from sparsecomm.typing import IntGlobal
from sparsecomm.volume import Volume

if TYPE_CHECKING:
    from sparsecomm.kernels.reuse import Reuse

ProductModel = Callable[[int, int, int, int], float]
"""Seconds of a local product, given nonzeros, rows of Y, the bytes of a row of X, and those of an entry."""


@dataclass(frozen=True, slots=True)
class Link:
    """What a copy costs at one level.

    Args:
        latency_s: seconds for each message of a rank.
        rank_Bps: bytes per second of one rank, in one direction.
        group_Bps: bytes per second of all ranks of a child group (a node, at the network) together.
        direct_share: the share of both rates that is reached straight out of GPU memory.
    """

    latency_s: float
    rank_Bps: float
    group_Bps: float
    direct_share: float = 1.0

    @staticmethod
    def of(level: Level) -> Link:
        share = level.direct_Bps / level.bandwidth_Bps if level.direct_Bps else 1.0
        return Link(level.latency_s, level.bandwidth_Bps, level.bandwidth_Bps * level.ports, share)


@dataclass(frozen=True, slots=True)
class LevelTime:
    """Predicted seconds at one level.

    Args:
        latency_s: starting the messages of the busiest rank.
        transfer_s: bytes over the rate of the port that limits.
        port: which one that is: of the busiest `rank`, or of the busiest `group` of ranks.
        staging_s: from the GPU to the host before, and back after, where that is faster than out of GPU memory.
    """

    latency_s: float
    transfer_s: float
    port: Literal["rank", "group"]
    staging_s: float

    @staticmethod
    def in_turn(times: Sequence[LevelTime]) -> LevelTime:
        """Return the time of what happens at a level one after the other; the port is that of the longest."""
        latency, transfer, staging = (
            sum(getattr(time, part) for time in times) for part in ("latency_s", "transfer_s", "staging_s")
        )
        return LevelTime(latency, transfer, max(times, key=lambda time: time.transfer_s).port, staging)

    @property
    def moving_s(self) -> float:
        """Everything that depends on the bytes."""
        return self.transfer_s + self.staging_s

    @property
    def total_s(self) -> float:
        return self.latency_s + self.moving_s


@dataclass(frozen=True, slots=True)
class Estimate:
    """Predicted seconds of one product, in parts that add up.

    Args:
        levels: communication at each level, inner to outer.
        pack_s: copying rows into and out of message buffers on the busiest rank.
        launch_s: starting kernels.
        product_s: the local multiplication on the rank with most nonzeros.
        hidden_s: what happens while something else does, to be taken off.
    """

    levels: tuple[LevelTime, ...]
    pack_s: float
    launch_s: float
    product_s: float
    hidden_s: float = 0.0

    @property
    def levels_s(self) -> tuple[float, ...]:
        """Communication at each level, inner to outer."""
        return tuple(level.total_s for level in self.levels)

    @property
    def communication_s(self) -> float:
        return self.total_s - self.product_s

    @property
    def total_s(self) -> float:
        return sum(self.levels_s) + self.pack_s + self.launch_s + self.product_s - self.hidden_s

    def parts(self, names: list[str]) -> dict[str, float]:
        """Return every part by what limits it, `network node port` for example; they add up to `total_s + hidden_s`.

        Args:
            names: of the levels, inner to outer.
        """
        found: dict[str, float] = {}
        for name, child, level in zip(names, ["rank", *names], self.levels, strict=False):
            found |= {f"{name} latency": level.latency_s, f"{name} rank port": 0.0, f"{name} {child} port": 0.0}
            found[f"{name} {'rank' if level.port == 'rank' else child} port"] = level.transfer_s
            found[f"{name} staging"] = level.staging_s
        return found | {"pack": self.pack_s, "launch": self.launch_s, "product": self.product_s}

    def limit(self, names: list[str]) -> str:
        """Return the name of the largest part."""
        parts = self.parts(names)
        return max(parts, key=lambda name: parts[name])

    def best_depth(self) -> int:
        """Return into how many chunks of columns the width is best cut, given an estimate for one chunk.

        Source: derived from T(m) in `CostModel.estimate`: its derivative vanishes at the square root below.
        """
        steps, alpha = self._steps(), self._starts()
        return max(1, round(math.sqrt((sum(steps) - max(steps)) / alpha))) if alpha else 1

    def pipelined(self, depth: int) -> Estimate:
        """Return the time with the width cut into `depth` chunks that follow each other through the levels."""
        steps = self._steps()
        levels = tuple(
            LevelTime(depth * level.latency_s, level.transfer_s, level.port, level.staging_s) for level in self.levels
        )
        hidden = (depth - 1) / depth * (sum(steps) - max(steps))
        return Estimate(levels, self.pack_s, depth * self.launch_s, self.product_s, hidden)

    def _steps(self) -> list[float]:
        return [*(level.moving_s for level in self.levels), self.pack_s, self.product_s]

    def _starts(self) -> float:
        return sum(level.latency_s for level in self.levels) + self.launch_s


@dataclass(frozen=True, slots=True)
class CostModel:
    """Postal costs with limits of ports: stages one after the other.

    Args:
        topology: latency, bandwidth and ports of every level, and the device of a rank.
        memory_Bps: bytes per second at which one rank copies; None is what the device of the topology does.
        links: of every level, inner to outer, where measured ones are to replace those of the topology.
        product: predicts the local product; None is bytes over `memory_Bps`.
        depth: chunks of columns that follow each other through the levels; 1 hides nothing.
        overlap: whether own nonzeros are multiplied while rows travel; of no effect where `depth` is more than 1.
        crowding: how many times longer a rank takes to copy and to multiply when all ranks do, since they share
            memory or cores; 1 where each has its own. What is said above is of a rank alone.
        gpu_links: of every level, what rows on GPUs cost by each transport that was timed; nothing where none was.

    Raises:
        InputError: there is not one link for each level, or `depth` is not positive.
    """

    topology: Topology
    memory_Bps: float | None = None
    links: tuple[Link, ...] | None = None
    product: ProductModel | None = None
    depth: int = 1
    overlap: bool = False
    crowding: float = 1.0
    gpu_links: tuple[dict[str, Link], ...] = ()

    def __post_init__(self) -> None:
        if self.links is not None and len(self.links) != self.topology.num_levels:
            raise InputError(
                f"{len(self.links)} links for the {self.topology.num_levels} levels of topology {self.topology.name}; "
                "give one for each"
            )
        if self.depth < 1:
            raise InputError(f"depth {self.depth} is not at least 1; give the number of chunks")

    @staticmethod
    def calibrated(topology: Topology, path: Path | None = None, reuse: Reuse | None = None) -> CostModel:
        """Return the model with what `sparsecomm calibrate` measured on this host, or wrote to `path`.

        Args:
            topology: of the ranks.
            path: of the calibration; None is that of this host.
            reuse: of what one rank multiplies; None counts all nonzeros alike.

        Raises:
            InputError: there is no such file, or it is no calibration.
        """
        from sparsecomm.calibration import Calibration, default_path

        measured = Calibration.load(path or default_path())
        measured.warn_of_presets(topology)
        return measured.model(topology, reuse=reuse)

    def link(self, level: int) -> Link:
        """Return what a copy costs at a level."""
        return Link.of(self.topology.levels[level]) if self.links is None else self.links[level]

    def gpu_s(self, level: int, name: str, messages: int, num_bytes: int) -> float:
        """Return the seconds that rows on GPUs take at a level, all ranks at work.

        Args:
            level: of the topology.
            name: of a transport that was timed there.
            messages, num_bytes: of the busiest rank.
        """
        link, crowd = self.gpu_links[level][name], int(np.bincount(self.topology.group_of(level - 1)).max())
        return messages * link.latency_s + num_bytes / min(link.rank_Bps, link.group_Bps / crowd)

    def estimate(
        self,
        volume: Volume,
        width: int,
        itemsize: int,
        max_rank_nnz: int = 0,
        own_nnz: int = 0,
        mean_rank_nnz: int = 0,
        mean_rank_rows: int = 0,
    ) -> Estimate:
        """Return the time of a schedule that moves `volume`.

        Level l takes latency * messages of the busiest rank + the larger of (bytes of the busiest rank / rate of a
        rank) and (bytes of the busiest child group / rate of a group). On GPUs that is tried twice, straight out of GPU
        memory and through the host, and the faster way counts. Cut into m chunks, T(m) = sum(t)/m + (m-1)/m max(t) +
        m sum(latency), with t the times of the levels, of packing and of the product. Phases of a volume follow each
        other, each as long as its own busiest ranks and groups take, and own nonzeros hide in the first alone.

        Args:
            volume: what moves, in rows.
            width: columns of X.
            itemsize: bytes of an entry on the wire.
            max_rank_nnz: nonzeros of the rank that has most.
            own_nnz: how many of them have an own column, and so wait for nothing.
            mean_rank_nnz: nonzeros of all ranks over the number of ranks; needed where ranks crowd each other.
            mean_rank_rows: rows of Y over the number of ranks; needed where a row was measured to take time of its own.

        Source: max-rate model of Gropp, Olson, Samfass 2016, with one rate for each level of the tree; staging as in
            Lockhart et al. 2022.
        """
        row_bytes = width * itemsize
        phases = [
            [self._level(phase, level, row_bytes) for level in range(self.topology.num_levels)]
            for phase in volume.phases or (volume,)
        ]
        levels = tuple(LevelTime.in_turn(times) for times in zip(*phases, strict=True))
        # Every row is read and written once when packed and once when unpacked.
        busiest = sum(int(phase.max_rank_rows.sum()) for phase in volume.phases or (volume,))
        rows = max(busiest, self.crowding * volume.rows.sum() / self.topology.num_ranks)
        pack = 4 * float(rows) * row_bytes / self._memory_Bps
        # A stage packs and unpacks; what is multiplied is one kernel more.
        launch = (2 * volume.num_stages + (max_rank_nnz > 0)) * self.topology.device.launch_s
        alone, together = (
            self.product_s(nnz, mean_rank_rows, row_bytes, itemsize) for nnz in (max_rank_nnz, mean_rank_nnz)
        )
        product = max(alone, self.crowding * together)
        own = product * own_nnz / max_rank_nnz if self.overlap and max_rank_nnz else 0.0
        # Own nonzeros are done before ghosts are multiplied, on which the next phase waits.
        hidden = min(own, sum(level.moving_s for level in phases[0]))
        whole = Estimate(levels, pack, launch, product, hidden)
        return whole if self.depth == 1 else whole.pipelined(self.depth)

    def product_s(self, nnz: int, num_rows: int, row_bytes: int, itemsize: int) -> float:
        """Return the time of a local product; by default each nonzero reads its value, index and row of X."""
        if self.product is not None:
            return self.product(nnz, num_rows, row_bytes, itemsize)
        return nnz * (row_bytes + itemsize + 4) / self._memory_Bps

    @property
    def _memory_Bps(self) -> float:
        return self.topology.device.memory_Bps if self.memory_Bps is None else self.memory_Bps

    def _level(self, volume: Volume, level: int, row_bytes: int) -> LevelTime:
        link = self.link(level)
        group = max(int(volume.max_group_in[level]), int(volume.max_group_out[level])) * row_bytes
        rank = int(volume.max_rank_rows[level]) * row_bytes
        port: Literal["rank", "group"] = "rank" if rank / link.rank_Bps >= group / link.group_Bps else "group"
        through = rank / link.rank_Bps if port == "rank" else group / link.group_Bps
        latency = int(volume.max_rank_messages[level]) * link.latency_s
        staging = _staging_s(rank, self.topology.device)
        if through / link.direct_share <= through + staging:
            return LevelTime(latency, through / link.direct_share, port, 0.0)
        return LevelTime(latency, through, port, staging)


def _staging_s(num_bytes: int, device: Device) -> float:
    """Return the time from a device to its host and, at the other end, back; no way where there is no host link."""
    if device.host_Bps == 0:
        return math.inf if num_bytes else 0.0
    return 2 * num_bytes / device.host_Bps


def imbalance(loads: IntGlobal) -> float:
    """Return the largest load over the mean load; 1.0 where there is none."""
    mean = float(np.mean(loads)) if loads.size else 0.0
    return float(loads.max()) / mean if mean else 1.0
