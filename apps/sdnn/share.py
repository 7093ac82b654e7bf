"""A rank's part of a layer: its rows, split into columns it owns and columns it is sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from sparsecomm.apps.sdnn.groups import Groups
from sparsecomm.io.csr import Matrix
from sparsecomm.kernels import Prepared, prepare
from sparsecomm.plan import RankPlan
from sparsecomm.typing import Bools


@dataclass(frozen=True, slots=True, eq=False)
class Share:
    """The weights of one layer that one rank multiplies, float32 with int32 indices.

    Args:
        own: (own neurons, own neurons).
        ghost: (own neurons, ghost neurons), or None where the rank is sent nothing.
    """

    own: Prepared
    ghost: Prepared | None

    @staticmethod
    def of(matrices: Sequence[csr_array[Any]], implementation: str = "auto") -> Share:
        """Make (own,) or (own, ghost) ready to be multiplied by an implementation, see `sparsecomm.kernels.prepare`."""
        parts = [prepare(matrix, implementation=implementation) for matrix in matrices]
        return Share(parts[0], parts[1] if len(parts) > 1 else None)

    @property
    def matrices(self) -> list[csr_array[Any]]:
        return [part.matrix for part in (self.own, self.ghost) if part is not None]

    @property
    def num_bytes(self) -> int:
        return sum(m.data.nbytes + m.indices.nbytes + m.indptr.nbytes for m in self.matrices)


def own_rows(matrix: Matrix, groups: Groups, rank: int) -> Matrix:
    """Return a rank's rows of a layer, (own neurons, rows of all groups), in the numbering of the groups' layout."""
    rows = matrix[groups.own_neurons(rank)]
    places = groups.rows_of_neurons[groups.rank_to_group[rank]]
    found = csr_array((rows.data, places[rows.indices], rows.indptr), shape=(rows.shape[0], groups.layout.num_rows))
    found.sort_indices()
    return found


def share_of(rows: Matrix, plan: RankPlan, implementation: str = "auto") -> Share:
    """Split a rank's rows by who owns the columns.

    Args:
        rows: as `own_rows` returns them.
        plan: the gather that brings this rank the columns it does not own.
        implementation: of the products.
    """
    own = (rows.indices >= plan.start) & (rows.indices < plan.start + plan.num_own)
    parts = [_part(rows, own, rows.indices - plan.start, plan.num_own)]
    if plan.num_ghost:
        parts.append(_part(rows, ~own, np.searchsorted(plan.ghost_rows, rows.indices), plan.num_ghost))
    return Share.of(parts, implementation)


def _part(rows: Matrix, picked: Bools, columns: Any, num_cols: int) -> csr_array[Any]:
    before = np.concatenate([[0], np.cumsum(picked)])
    parts = (rows.data[picked], columns[picked].astype(np.int32), before[rows.indptr].astype(np.int32))
    return csr_array(parts, shape=(rows.shape[0], num_cols))
