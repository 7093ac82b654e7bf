"""Which nonzeros are served by a row of X and which by a partial row of Y, for a given split."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsecomm.bipartite import minimum_cover
from sparsecomm.partition.structure import Structure
from sparsecomm.table import number
from sparsecomm.typing import Bools, IntGlobal, IntRank

_DENSE_COUNTS = 1 << 27


def by_use(structure: Structure, part: IntRank, num_parts: int) -> Bools:
    """Let the column serve a nonzero where it has more nonzeros in the part of the row than the row in its part.

    The rule says something of nonzeros inside a part too: how they are served once one end moves away.
    """
    row, col = structure.ends()
    in_col = _times(col, part[row], structure.num_vertices, num_parts)
    in_row = _times(row, part[col], structure.num_vertices, num_parts)
    return np.asarray((in_col > in_row) | ((in_col == in_row) & structure.by_degree()))


def _times(vertex: Any, part: IntRank, num_vertices: int, num_parts: int) -> IntGlobal:
    """Return for every nonzero how many others have the same `vertex` and `part`."""
    pair = vertex.astype(np.int64) * num_parts + part
    if num_vertices * num_parts > _DENSE_COUNTS:
        pair = number([pair])
    return np.asarray(np.bincount(pair)[pair])


def by_cover(structure: Structure, part: IntRank, num_parts: int) -> Bools:
    """Serve the nonzeros between parts by a minimum cover of each pair of parts, the others by degree."""
    row, col = structure.ends()
    result = structure.by_degree()
    remote = np.flatnonzero(part[row] != part[col])
    row, col = row[remote].astype(np.int64), col[remote].astype(np.int64)
    pair = part[col].astype(np.int64) * num_parts + part[row]
    result[remote] = ~minimum_cover(pair, row, col).by_left
    return result
