"""Who has which neurons and which images: groups of ranks, each with the whole network between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from sparsecomm.apps.sdnn.inputs import DEALT
from sparsecomm.errors import InputError
from sparsecomm.layout import Layout
from sparsecomm.topology import Topology
from sparsecomm.typing import IntGlobal, IntRank

MODES: Final = ("data", "model", "hybrid")


def grouping(mode: str, topology: Topology) -> IntRank:
    """Return `rank_to_group` of a mode.

    `data`: every rank by itself has all neurons and a part of the images. `model`: all ranks together, each with a
    part of the neurons and all images. `hybrid`: the ranks of a node together, the images split between nodes.

    Raises:
        InputError: there is no such mode.
    """
    if mode not in MODES:
        raise InputError(f"unknown mode {mode!r}; give one of {', '.join(MODES)}")
    if mode == "model":
        return np.zeros(topology.num_ranks, dtype=np.int32)
    return np.arange(topology.num_ranks, dtype=np.int32) if mode == "data" else topology.rank_to_node


@dataclass(frozen=True, eq=False)
class Groups:
    """The neurons of every rank. Row `g * neurons + i` stands for neuron i in group g.

    Args:
        rank_to_group: (num_ranks,) int32.
        neurons: of a layer.
        layout: who owns the rows of all groups.
    """

    rank_to_group: IntRank
    neurons: int
    layout: Layout

    @staticmethod
    def of(rank_to_group: IntRank, neurons: int, parts: Callable[[int], IntRank]) -> Groups:
        """Split the neurons of every group.

        Args:
            rank_to_group: (num_ranks,) int32.
            neurons: of a layer.
            parts: given the ranks of a group, the part 0, 1, ... that each neuron belongs to.
        """
        members = [np.flatnonzero(rank_to_group == group) for group in range(int(rank_to_group.max()) + 1)]
        split = {size: parts(size) for size in {ranks.size for ranks in members}}
        owners = np.concatenate([ranks[split[ranks.size]] for ranks in members]).astype(np.int32)
        return Groups(rank_to_group, neurons, Layout.from_owners(owners, rank_to_group.size))

    @cached_property
    def sizes(self) -> IntGlobal:
        """(num_groups,) int64: ranks of every group."""
        return np.bincount(self.rank_to_group).astype(np.int64)

    @cached_property
    def first_ranks(self) -> IntGlobal:
        """(num_groups,) int64: the first rank of every group."""
        return np.unique(self.rank_to_group, return_index=True)[1]

    @property
    def alone(self) -> bool:
        """Whether every rank has all neurons, and no layer needs an exchange."""
        return self.sizes.size == self.rank_to_group.size

    @cached_property
    def rows_of_neurons(self) -> IntGlobal:
        """(num_groups, neurons) int64: the row of every neuron in the numbering of the layout."""
        return self.layout.to_all().reshape(-1, self.neurons)

    def own_neurons(self, rank: int) -> IntGlobal:
        """Return the neurons of `rank`, ascending, in the order of its rows."""
        own = self.layout.own_rows(rank)
        return self.layout.new_to_old()[own.start : own.stop] % self.neurons

    def owner(self, group: IntGlobal, neuron: IntGlobal) -> IntRank:
        """Return the rank of `group[i]` that has `neuron[i]`."""
        return self.layout.owner(self.rows_of_neurons[group, neuron])

    def images_of(self, group: int, count: int) -> IntGlobal:
        """Return the images that a group begins with: a few at a time are dealt to the ranks in turn."""
        images = np.arange(count, dtype=np.int64)
        dealt = self.rank_to_group[images // DEALT % self.rank_to_group.size]
        mine: IntGlobal = images[dealt == group]
        return mine

    def members(self, groups: IntGlobal) -> tuple[IntGlobal, IntRank]:
        """Return (index into `groups`, rank) for every rank of every one of `groups`."""
        order = np.argsort(self.rank_to_group, kind="stable")
        start = np.cumsum(self.sizes) - self.sizes
        counts = self.sizes[groups]
        index = np.repeat(np.arange(groups.size, dtype=np.int64), counts)
        within = np.arange(index.size) - np.repeat(np.cumsum(counts) - counts, counts)
        return index, order[start[groups][index] + within].astype(np.int32)
