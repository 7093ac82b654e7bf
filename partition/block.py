"""Partitioner `block`: contiguous rows, as even as they go."""

from __future__ import annotations

from typing import Any

from scipy.sparse import csr_array

from sparsecomm.layout import Layout, Layouts
from sparsecomm.partition.registry import Objective, register_partitioner
from sparsecomm.topology import Topology


def partition_block(
    matrix: csr_array[Any], topology: Topology, *, objective: Objective | None, balance: float, seed: int
) -> Layouts:
    """Split rows and columns like `numpy.array_split`; nothing is renumbered."""
    rows = Layout.block(matrix.shape[0], topology.num_ranks)
    square = matrix.shape[0] == matrix.shape[1]
    return Layouts(rows, rows if square else Layout.block(matrix.shape[1], topology.num_ranks))


register_partitioner("block", partition_block)
