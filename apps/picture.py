"""A matrix as a small picture: how many nonzeros lie in each cell of a grid over it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import numpy as np
from scipy.sparse import csr_array

from sparsecomm.apps.summary import Json
from sparsecomm.collectives.profile import Profile
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.layout import Layouts
from sparsecomm.topology import Topology
from sparsecomm.typing import IntGlobal

CELLS: Final = 128
_PIECE: Final = 1 << 22  # nonzeros looked at together, so that a picture takes little memory


def density(rows: csr_array[Any], first_row: int, shape: tuple[int, int]) -> IntGlobal:
    """Return the nonzeros in every cell of a grid over a whole matrix, at most (CELLS, CELLS) int64.

    Args:
        rows: (m, all columns), some rows of the matrix in new numbering.
        first_row: the number of the first of them.
        shape: of the matrix.
    """
    cells = [max(1, min(CELLS, size)) for size in shape]
    counts = np.zeros(cells[0] * cells[1], dtype=np.int64)
    bounds = np.searchsorted(rows.indptr, np.arange(_PIECE, rows.nnz, _PIECE))
    for begin, end in pairwise(np.unique([0, *bounds, rows.shape[0]]).tolist()):
        row = (first_row + np.arange(begin, end, dtype=np.int64)) * cells[0] // max(shape[0], 1)
        indptr = rows.indptr[begin : end + 1]
        col = rows.indices[indptr[0] : indptr[-1]].astype(np.int64) * cells[1] // max(shape[1], 1)
        counts += np.bincount(np.repeat(row, np.diff(indptr)) * cells[1] + col, minlength=counts.size)
    return counts.reshape(cells)


def picture_json(cells: IntGlobal, layouts: Layouts, topology: Topology) -> Json:
    """Return a picture with the first row and the first column of every node, as shares of all."""
    starts = topology.first_of_group(topology.num_levels - 2)
    lines = {
        side: (layout.offsets[starts] / max(layout.num_rows, 1)).round(6).tolist()
        for side, layout in zip(("rows", "cols"), layouts, strict=True)
    }
    return {"cells": cells.tolist(), "nodes": lines if topology.num_nodes <= CELLS else None}


def keep(profile: Profile, report: Json, rows: csr_array[Any], layouts: Layouts, transport: Transport) -> None:
    """Add to a profile what was run: its report and a picture of the matrix.

    Note: Collective over comm.
    """
    mine = density(rows, layouts.rows.own_rows(transport.rank).start, (layouts.rows.num_rows, layouts.cols.num_rows))
    picture = transport.reduce(mine, "sum")
    if transport.rank == 0:
        profile.report = report | {"density": picture_json(picture, layouts, profile.topology)}
        profile.save_report()
