"""Who owns the columns of a rectangular matrix whose rows have owners."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_array

from sparsecomm.layout import Layout, Layouts
from sparsecomm.table import run_starts, sort_order
from sparsecomm.topology import Topology
from sparsecomm.typing import Floats, IntRank


def with_columns(matrix: csr_array[Any], row_to_rank: IntRank, topology: Topology, shares: Floats) -> Layouts:
    """Return layouts in which a column of a rectangular matrix goes to the rank with most of its nonzeros."""
    rows = Layout.from_owners(row_to_rank, topology.num_ranks)
    if matrix.shape[0] == matrix.shape[1]:
        return Layouts(rows, rows)
    return Layouts(rows, Layout.from_owners(_follow(matrix, row_to_rank, shares), topology.num_ranks))


def _follow(matrix: csr_array[Any], row_to_rank: IntRank, shares: Floats) -> IntRank:
    """Return `col_to_rank`; of ranks with equally many nonzeros the first, of unused columns each rank some."""
    rank = np.repeat(row_to_rank, np.diff(matrix.indptr))
    order = sort_order([matrix.indices, rank])
    col, rank = matrix.indices[order], rank[order]
    starts = np.flatnonzero(run_starts([col, rank]))
    counts = np.diff(np.append(starts, col.size))
    col, rank = col[starts], rank[starts]
    best = sort_order([col, -counts])
    first = best[run_starts([col[best]])]
    used = np.flatnonzero(shares > 0)
    result = used[np.arange(matrix.shape[1]) * used.size // max(matrix.shape[1], 1)].astype(np.int32)
    result[col[first]] = rank[first]
    return result
