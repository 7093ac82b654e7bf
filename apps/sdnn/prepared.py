"""What a rank has before the first image: its neurons, its weights, and the plans of the layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sparsecomm.apps.job import on_all, on_root
from sparsecomm.apps.sdnn.groups import Groups, grouping
from sparsecomm.apps.sdnn.layers import load_loops
from sparsecomm.apps.sdnn.memory import Budget
from sparsecomm.apps.sdnn.network import Network
from sparsecomm.apps.sdnn.planner import Planner, joint_partition
from sparsecomm.apps.sdnn.problem import Problem, SdnnOptions
from sparsecomm.apps.sdnn.share import Share, own_rows, share_of
from sparsecomm.apps.sdnn.weights import Weights
from sparsecomm.apps.source import Say
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.kernels.prepared import LOADING_WORK
from sparsecomm.plan import RankPlan
from sparsecomm.topology import Topology
from sparsecomm.typing import IntRank

# numba and the loops it compiles take 120 MB; they are left out where that is much of the memory allowed.
_LOOPS_BYTES: Final = 512 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """What one rank has before the first image.

    Args:
        groups: who has which neurons and images.
        weights: of this rank.
        plans: key and plan of every distinct layer; empty where every rank has all neurons.
        strategy: that made the plans, None where there are none.
        edges: of every distinct layer.
    """

    groups: Groups
    weights: Weights
    plans: list[tuple[str, RankPlan]]
    strategy: str | None
    edges: list[int]


def prepare(
    problem: Problem, options: SdnnOptions, topology: Topology, transport: Transport, budget: Budget, say: Say
) -> Prepared:
    """Read the layers one after the other, keep this rank's part of each, and plan those that need an exchange.

    Note: Collective over comm.
    """
    network = problem.network
    groups = _groups(network, options, topology, transport, say)
    planner = Planner(groups, topology, transport, options.strategy, options.width)
    implementation = "scipy"
    if _loops_pay(problem, budget):
        implementation = "compiled"
        load_loops(options.width, network.bias)  # before weights are given the memory that is left
    weights, plans, edges = Weights(budget, options.scratch, implementation), [], []
    for distinct in range(network.num_distinct):
        say(f"preparing layer {distinct + 1} of {network.num_distinct}")
        matrix = on_all(transport, lambda: network.matrix(distinct))  # noqa: B023
        edges.append(matrix.nnz)
        if groups.alone:
            share = Share.of([matrix], implementation)
        else:
            rows = own_rows(matrix, groups, transport.rank)
            plans.append(planner.plan(matrix, rows))
            share = share_of(rows, plans[-1][1], implementation)
        on_all(transport, lambda: weights.add(share))  # noqa: B023
    return Prepared(groups, weights, plans, planner.strategy, edges)


def _loops_pay(problem: Problem, budget: Budget) -> bool:
    """Say whether compiled loops save more time than loading them takes, and fit the memory; results are the same."""
    edges = problem.network.num_layers * 32 * problem.network.neurons  # as in the challenge, others about so
    left = budget.left()
    return problem.inputs.count * edges > LOADING_WORK and (left is None or left > _LOOPS_BYTES)


def _groups(network: Network, options: SdnnOptions, topology: Topology, transport: Transport, say: Say) -> Groups:
    """Split neurons by the partition method, between all ranks or between those of each node.

    Note: Collective over comm.
    """
    rank_to_group = grouping(options.mode, topology)

    def parts(size: int) -> IntRank:
        machine = topology if size == topology.num_ranks else Topology.parse(f"uniform:1x{size}")
        made = on_root(transport, lambda: joint_partition(network, machine, options.method))
        found = transport.bcast(made)
        assert found is not None  # rank 0 made it
        return found

    say(f"partitioning the neurons by {options.method}")
    return Groups.of(rank_to_group, network.neurons, parts)
