"""How soon a product reads a row of X again, and how much it touches in between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from sparsecomm.typing import IntGlobal

# Nonzeros that are counted within a tenth of a second.
_COUNTED: Final = 1 << 20

Reals = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Reuse:
    """The nonzeros of a matrix in CSR order, grouped by how many nonzeros ago their column was last read.

    Args:
        counts: (bins,) int64; `counts[j]` nonzeros had their column 2^j .. 2^(j+1) - 1 nonzeros ago.
        sums: (bins,) float64, the sum of these distances.
        first: nonzeros that are the first of their column: one for each distinct column.
        rows: of the matrix.
    """

    counts: IntGlobal
    sums: Reals
    first: int
    rows: int

    @staticmethod
    def of(matrix: csr_array[Any]) -> Reuse:
        """Count the distances of a matrix, in time linear in its nonzeros."""
        places = csr_array((np.arange(matrix.nnz), matrix.indices, matrix.indptr), shape=matrix.shape).tocsc()
        distance = np.diff(places.data)
        same = np.ones(max(matrix.nnz - 1, 0), dtype=bool)
        starts = places.indptr[1:-1]
        same[starts[(starts > 0) & (starts < matrix.nnz)] - 1] = False
        distance = distance[same]
        bins = np.frexp(distance)[1] - 1
        return Reuse(
            np.bincount(bins).astype(np.int64),
            np.bincount(bins, weights=distance).astype(np.float64),
            matrix.nnz - distance.size,
            matrix.shape[0],
        )

    @staticmethod
    def of_first(matrix: csr_array[Any], rows: int) -> Reuse:
        """Count the distances of the first rows of a matrix, or of as many of them as are quick to count."""
        last = min(rows, int(np.searchsorted(matrix.indptr, _COUNTED, side="right")))
        return Reuse.of(csr_array(matrix[: max(last, 1)]))

    @property
    def nnz(self) -> int:
        return int(self.counts.sum()) + self.first

    def columns_touched(self) -> Reals:
        """Return, for 2^j nonzeros in a row, the mean number of distinct columns they touch: (bins + 1,).

        Source: working sets from distances between uses: Denning and Schwartz, Properties of the working-set model,
        1972: the mean of min(distance, window), a first use counting as an endless one.
        """
        window = 2.0 ** np.arange(self.counts.size + 1)
        below = np.concatenate([[0], np.cumsum(self.sums)])
        above = self.nnz - np.concatenate([[0], np.cumsum(self.counts)])
        touched: Reals = np.minimum((below + above * window) / max(self.nnz, 1), max(self.first, 1))
        return touched

    def working_sets(self, row_bytes: int, entry_bytes: int) -> tuple[Reals, IntGlobal]:
        """Return the bytes touched since the last use of a row of X, and how many nonzeros have that: two (bins + 1,).

        The last entry is first uses: a product that is repeated finds those rows as the one before left them.

        Args:
            row_bytes: of a row of X, and of Y.
            entry_bytes: value and index of a nonzero.
        """
        window = 2.0 ** np.arange(self.counts.size + 1)
        streamed = window * (entry_bytes + row_bytes * self.rows / max(self.nnz, 1))
        touched = self.columns_touched() * row_bytes + streamed
        between = np.sqrt(touched[:-1] * touched[1:])
        whole = (self.first + self.rows) * row_bytes + self.nnz * entry_bytes
        return np.append(np.minimum(between, whole), whole), np.append(self.counts, self.first)
