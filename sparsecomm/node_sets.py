"""Sets of nodes, one for each row or column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsecomm.table import distinct
from sparsecomm.typing import Bools, IntGlobal

Nodes = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class NodeSets:
    """A set of nodes for each row or column; most are empty.

    Args:
        packed: int64, id * num_nodes + node of every member, ascending.
        num_nodes: nodes are numbered from 0 to this.
    """

    packed: IntGlobal
    num_nodes: int

    @staticmethod
    def of(ids: IntGlobal, node: Nodes, num_nodes: int) -> NodeSets:
        """Put `node[i]` into the set of `ids[i]`."""
        return NodeSets(distinct([ids * num_nodes + node])[0], num_nodes)

    def __len__(self) -> int:
        return self.packed.size

    def ids(self) -> IntGlobal:
        return self.packed // self.num_nodes

    def nodes(self) -> IntGlobal:
        return self.packed % self.num_nodes

    def holds(self, ids: IntGlobal, node: Nodes) -> Bools:
        """Return whether `node[i]` is in the set of `ids[i]`."""
        wanted = ids * self.num_nodes + node
        return np.asarray(np.append(self.packed, -1)[np.searchsorted(self.packed, wanted)] == wanted)

    def members(self, ids: IntGlobal) -> tuple[IntGlobal, IntGlobal]:
        """Return (i, node) for every node in the set of `ids[i]`, by i and then by node."""
        begin = np.searchsorted(self.packed, ids * self.num_nodes)
        count = np.searchsorted(self.packed, (ids + 1) * self.num_nodes) - begin
        place = np.arange(int(count.sum())) + np.repeat(begin - np.cumsum(count) + count, count)
        return np.repeat(np.arange(ids.size), count), self.packed[place] % self.num_nodes
