"""Plans of the layers: one for each pattern, however many layers share it."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from scipy.sparse import csr_array

from sparsecomm.apps.sdnn.groups import Groups
from sparsecomm.apps.sdnn.network import Network
from sparsecomm.collectives.strategy import Strategy, get_strategy
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.cost import CostModel
from sparsecomm.errors import InputError
from sparsecomm.io.csr import Matrix
from sparsecomm.io.fingerprint import matrix_fingerprint
from sparsecomm.layout import Layout, Layouts
from sparsecomm.partition.registry import partition_rows
from sparsecomm.pattern import Remote
from sparsecomm.plan import RankPlan
from sparsecomm.topology import Topology
from sparsecomm.typing import IntRank

# Strategies that bring whole rows: an activation needs the whole sum, so partial sums would have to come back first.
GATHERS: Final = ("direct", "hierarchical", "striped", "allgather")

# Layers that a joint partition looks at; further copies have patterns like these.
_JOINT_LAYERS: Final = 32


def check_strategy(name: str) -> None:
    """Refuse a strategy that moves partial sums.

    Raises:
        InputError: with the strategies there are.
    """
    if name not in ("auto", *GATHERS):
        raise InputError(f"strategy {name!r} cannot run a network; give one of auto, {', '.join(GATHERS)}")


class Planner:
    """Makes the plan of a layer when a pattern is first seen.

    Args:
        groups: who owns which neurons.
        topology: of the job.
        transport: over its ranks.
        strategy: one of `GATHERS`, or `auto`: the one predicted fastest for the first layer.
        width: images that travel together.
    """

    def __init__(self, groups: Groups, topology: Topology, transport: Transport, strategy: str, width: int) -> None:
        self._groups, self._topology, self._transport, self._width = groups, topology, transport, width
        self._strategy: Strategy | None = None if strategy == "auto" else get_strategy(strategy)
        self.plans: dict[str, RankPlan] = {}

    @property
    def strategy(self) -> str | None:
        return self._strategy.name if self._strategy and self.plans else None

    def plan(self, matrix: Matrix, rows: Matrix) -> tuple[str, RankPlan]:
        """Return the key of a layer's pattern and this rank's part of its plan.

        Args:
            matrix: the layer.
            rows: this rank's rows of it, see `own_rows`.

        Note: Collective over comm.
        """
        key = matrix_fingerprint(matrix)
        if key not in self.plans:
            remote = Remote.of(rows, Layouts(self._groups.layout, self._groups.layout), self._transport.held)
            if self._strategy is None:
                self._strategy = self._fastest(remote, rows.nnz)
            self.plans[key] = self._strategy.build_rank(remote, self._topology, self._transport).gather
        return key, self.plans[key]

    def _fastest(self, remote: Remote, nnz: int) -> Strategy:
        cost, busiest = CostModel(self._topology), int(self._transport.reduce(np.array([nnz]), "max")[0])

        def seconds(strategy: Strategy) -> float:
            volume = strategy.count(remote, self._topology, self._transport)
            return cost.estimate(volume, self._width, 4, busiest).total_s

        return min(map(get_strategy, GATHERS), key=seconds)


def joint_partition(network: Network, topology: Topology, method: str) -> IntRank:
    """Return the rank of every neuron, (neurons,) int32, for all layers together.

    A layer's output is the next one's input, so one layout serves all layers; it is made for the sum of their patterns.

    Raises:
        InputError: there is no such method, or it cannot keep its limits.
    """
    if method == "block" or topology.num_ranks == 1:
        return Layout.block(network.neurons, topology.num_ranks).owners()
    total = csr_array((network.neurons, network.neurons), dtype=np.float32)
    for distinct in range(min(network.num_distinct, _JOINT_LAYERS)):
        total = total + _ones(network.matrix(distinct))
    layout = partition_rows(csr_array(total), topology, method).rows
    return layout.owner(layout.to_all())


def _ones(matrix: Matrix) -> csr_array[Any]:
    return csr_array((np.ones(matrix.nnz, np.float32), matrix.indices, matrix.indptr), shape=matrix.shape)
