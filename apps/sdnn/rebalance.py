"""Moving images between groups once most have died, so that every rank has about as many again."""

from __future__ import annotations

import numpy as np

from sparsecomm.apps.sdnn.batches import Batches, width_for
from sparsecomm.apps.sdnn.groups import Groups
from sparsecomm.apps.sdnn.inputs import Pixels
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.table import Table
from sparsecomm.typing import IntGlobal


def fair_shares(counts: IntGlobal, sizes: IntGlobal) -> IntGlobal:
    """Return how many images each group should have, (num_groups,) int64: in proportion to its ranks.

    Args:
        counts: images of each group.
        sizes: ranks of each group.
    """
    shares: IntGlobal = counts.sum() * sizes // sizes.sum()
    shares[: counts.sum() - shares.sum()] += 1
    return shares


def rebalance(
    batches: Batches, alive: IntGlobal, counts: IntGlobal, groups: Groups, transport: Transport, most: int
) -> tuple[Batches, IntGlobal]:
    """Send the images that groups have too many of to those that have too few.

    Args:
        batches: of this rank; taken apart.
        alive: columns of the images that live, ascending; as many as `counts` says.
        counts: (num_groups,) living images of every group.
        groups: who owns which neurons.
        transport: over the ranks.
        most: the largest width of a batch.

    Returns:
        The batches with the images that stay and those that came, and the new counts.

    Note: Collective over comm.

    Source: balanced out-of-core code of Hidayetoglu et al., "At-scale sparse deep neural network inference" (2020).
    """
    group = int(groups.rank_to_group[transport.rank])
    shares = fair_shares(counts, groups.sizes)
    surplus = np.maximum(counts - shares, 0)
    to_group = np.repeat(np.arange(counts.size), np.maximum(shares - counts, 0))
    begin = int(surplus[:group].sum())
    to_group = to_group[begin : begin + int(surplus[group])]
    stay, leave = np.split(alive, [alive.size - to_group.size])
    came, moved = _send(batches, leave, to_group, groups, transport)
    own = groups.own_neurons(transport.rank)
    packed = batches.select(stay, width_for(int(shares.max()), most))
    packed.extend(came)
    order = np.argsort(packed.ids)
    column = order[np.searchsorted(packed.ids, moved.image, sorter=order)]
    packed.fill(column, np.searchsorted(own, moved.neuron), moved.value)
    return packed, shares


def _send(
    batches: Batches, leave: IntGlobal, to_group: IntGlobal, groups: Groups, transport: Transport
) -> tuple[IntGlobal, Pixels]:
    """Send activations to the ranks that have their neurons, and the numbers of the images to whole groups.

    Note: Collective over comm.
    """
    rank, ids = transport.rank, batches.ids[leave]
    found = batches.entries(leave) if leave.size else Pixels(leave, leave, np.empty(0, np.float32))
    neuron = groups.own_neurons(rank)[found.neuron]
    table = Table(
        np.full(neuron.size, rank, dtype=np.int32),
        {"image": ids[found.image], "neuron": neuron, "value": found.value},
    )
    moved = transport.route(table, groups.owner(to_group[found.image], neuron))
    speaks = rank == groups.first_ranks[groups.rank_to_group[rank]]
    index, members = groups.members(to_group if speaks else to_group[:0])
    came = transport.route(Table(np.full(index.size, rank, dtype=np.int32), {"image": ids[index]}), members)
    return came["image"], Pixels(moved["image"], moved["neuron"], moved["value"])
