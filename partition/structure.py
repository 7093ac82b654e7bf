"""The vertices, graph and nets of a matrix that is to be split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import block_array, csr_array

from sparsecomm.partition.request import Side
from sparsecomm.typing import Bools, IntGlobal

Indices = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Structure:
    """A matrix as something to split: row i of a square matrix and column i are one vertex, else they are two.

    Args:
        pattern: (rows, cols) int8, the matrix without its values.
        weights: (num_vertices,) int64, the load of every vertex; in a rectangular matrix columns follow the rows.
        square: whether rows and columns are the same vertices.
    """

    pattern: csr_array[Any]
    weights: IntGlobal
    square: bool

    @staticmethod
    def of(matrix: csr_array[Any]) -> Structure:
        """Take a row for its nonzeros; a column of a rectangular matrix weighs nothing."""
        ones = np.ones(matrix.indices.size, np.int8)
        pattern = csr_array((ones, matrix.indices, matrix.indptr), shape=matrix.shape)
        square = matrix.shape[0] == matrix.shape[1]
        weights = np.zeros(matrix.shape[0] + (0 if square else matrix.shape[1]), dtype=np.int64)
        weights[: matrix.shape[0]] = np.diff(matrix.indptr)
        return Structure(pattern, weights, square)

    @property
    def num_vertices(self) -> int:
        return self.weights.size

    @property
    def num_rows(self) -> int:
        return int(self.pattern.shape[0])

    @property
    def col_shift(self) -> int:
        """The vertex of column 0."""
        return 0 if self.square else self.num_rows

    def restrict(self, vertices: IntGlobal) -> Structure:
        """Keep the nonzeros between `vertices` (ascending); loads stay what they were."""
        if self.square:
            return Structure(self.pattern[vertices][:, vertices], self.weights[vertices], True)
        rows, cols = np.split(vertices, [int(np.searchsorted(vertices, self.num_rows))])
        return Structure(self.pattern[rows][:, cols - self.num_rows], self.weights[vertices], False)

    def graph(self) -> csr_array[Any]:
        """Return the symmetric pattern of the vertices without its diagonal, int8."""
        if not self.square:
            return csr_array(block_array([[None, self.pattern], [self.pattern.T, None]], format="csr"))
        both = csr_array(self.pattern + self.pattern.T.tocsr())
        row = np.repeat(np.arange(both.shape[0], dtype=both.indices.dtype), np.diff(both.indptr))
        off = row != both.indices
        before = np.concatenate([[0], np.cumsum(off)])
        return csr_array((both.data[off], both.indices[off], before[both.indptr]), shape=both.shape)

    def ends(self) -> tuple[Indices, Indices]:
        """Return the row vertex and the column vertex of every nonzero, in CSR order."""
        rows = np.repeat(np.arange(self.num_rows, dtype=self.pattern.indices.dtype), np.diff(self.pattern.indptr))
        return rows, self.pattern.indices + self.pattern.indices.dtype.type(self.col_shift)

    def by_degree(self) -> Bools:
        """Say for every nonzero whether its column, the one with more nonzeros, is to be moved and not its row."""
        in_col = np.bincount(self.pattern.indices, minlength=self.pattern.shape[1])
        counts = np.diff(self.pattern.indptr)
        return np.asarray(in_col[self.pattern.indices] >= np.repeat(counts, counts))

    def nets(self, by_column: Bools | None) -> csr_array[Any]:
        """Return the vertices that each net joins, int8 (nets, vertices).

        The net of a column joins the column and the rows whose nonzeros it serves; the net of a row joins the row
        and the columns whose nonzeros it serves. Parts that a net touches beyond the first are rows that cross.

        Args:
            by_column: for every nonzero, whether its column serves it; None for all of them.

        Source: Catalyurek and Aykanat 1999 (one kind of net); here each nonzero chooses one of the two.
        """
        row, col = self.ends()
        size = self.num_vertices
        if by_column is None:
            net, pin = col, row
        else:
            net = np.where(by_column, col.astype(np.int64), row.astype(np.int64) + size)
            pin = np.where(by_column, row, col)
        num_nets = size if by_column is None else 2 * size
        own = np.arange(num_nets, dtype=net.dtype)
        net, pin = np.concatenate([net, own]), np.concatenate([pin, (own % size).astype(pin.dtype)])
        nets = csr_array((np.ones(net.size, np.int8), (net, pin)), shape=(num_nets, size))
        return csr_array(nets[np.diff(nets.indptr) > 1])

    def model(self, side: Side) -> csr_array[Any]:
        """Return the nets that stand for what a plan moves: rows of X only, or rows of X and of Y."""
        return self.nets(self.by_degree() if side == "both" else None)
