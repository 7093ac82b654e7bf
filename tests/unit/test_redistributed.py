"""The matrix whose ranks multiply slices of the width, with one thread per rank, against scipy on the whole matrix."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import eye_array, kron

from sparsecomm.apps.redistributed import RedistributedMatrix, in_pieces
from sparsecomm.collectives.redistribute import REDISTRIBUTE
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.collectives.transport.local import run_local
from sparsecomm.errors import InputError
from sparsecomm.io.matrix import read_matrix
from sparsecomm.layout import Layout, Layouts
from sparsecomm.pattern import Remote
from sparsecomm.topology import Topology
from tests.matrix_cases import cases, sparse, whole_numbers


@pytest.mark.parametrize("num_ranks", [1, 2, 4, 7])
def test_products(num_ranks: int) -> None:
    run_local(num_ranks, _check, deadline_s=200)


def test_pieces() -> None:
    rows = sparse((7, 9), 0.3, np.float64, 1)
    made, place = in_pieces(rows, 4)
    np.testing.assert_array_equal(made.toarray(), kron(rows, eye_array(4)).toarray())
    np.testing.assert_array_equal(made.data, rows.data[place])


@pytest.mark.parametrize("spec", ["uniform:4x2", "nodes:3,1"])
def test_every_row_moves_once(spec: str) -> None:
    """Of each row that remote nonzeros need, of X and of Y, a piece goes to every rank but its owner."""
    topology, matrix = Topology.parse(spec), read_matrix("er:300:9")
    pieces, layout = topology.num_ranks, Layout.block(300, topology.num_ranks)
    cut = Layouts(*[Layout(layout.offsets * pieces)] * 2)
    product = REDISTRIBUTE.build(Remote.of(in_pieces(matrix, pieces)[0], cut), topology)
    product.verify()
    needed = Remote.of(matrix, Layouts(layout, layout)).nonzeros
    expected = np.zeros(2, dtype=np.int64)
    for owner in layout.owner(np.concatenate([np.unique(needed["row"]), np.unique(needed["col"])])):
        expected += np.bincount(topology.level_of(owner, np.delete(np.arange(pieces), owner)), minlength=2)
    assert product.volume().rows.tolist() == expected.tolist()
    assert len(product.volume().phases) == 2


def _check(transport: Transport) -> None:
    """Slices of any width, forward, transposed and with other values; every row moves once in and once out, at most."""
    for case in cases(transport.num_ranks):
        rank, pieces = transport.rank, transport.num_ranks
        rows = case.rows(rank)
        with RedistributedMatrix(rows, case.layouts, case.topology, transport) as matrix:
            for matrix_now, data in ((case.matrix, rows.data), (case.matrix * 3, 3 * rows.data)):
                matrix.update_values(data)
                for width in (1, pieces, 2 * pieces + 1):
                    x, y = (whole_numbers((size, width), np.float64, 6) for size in case.matrix.shape[::-1])
                    mine, turned = case.mine(x, "cols", rank), case.mine(y, "rows", rank)
                    np.testing.assert_array_equal(matrix @ mine, case.mine(matrix_now @ x, "rows", rank))
                    result = matrix.multiply_transposed(turned)
                    np.testing.assert_array_equal(result, case.mine(matrix_now.T @ y, "cols", rank))
            vector = matrix.distribute(x[:, 0] if rank == 0 else None)
            whole = matrix.collect(matrix @ vector)
            assert (whole is None) == (rank != 0)
            if whole is not None:
                np.testing.assert_array_equal(whole, matrix_now @ x[:, 0])
            moved = transport.reduce(matrix.executed.rows_received, "sum").sum()
            assert moved <= 13 * (pieces - 1) * sum(case.matrix.shape)  # in pieces; 13 products
            with pytest.raises(InputError, match="rows of X"):
                _ = matrix @ np.zeros((rows.shape[0] + rows.shape[1] + 1, 2))
            with pytest.raises(InputError, match="update_values needs"):
                matrix.update_values(np.zeros(rows.nnz + 1))
