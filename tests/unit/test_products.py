"""Products of every strategy on whole numbers, against scipy: all ranks at once, and a thread for each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from sparsecomm.apps.matrix import DistMatrix
from sparsecomm.collectives.execute import execute, execute_reverse
from sparsecomm.collectives.strategy import get_strategy, strategy_names
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.collectives.transport.local import run_local
from sparsecomm.io.matrix import read_matrix
from sparsecomm.layout import Layout, Layouts
from sparsecomm.pattern import Remote
from sparsecomm.plan import Plan
from sparsecomm.product import Product
from sparsecomm.table import Offline
from sparsecomm.topology import Topology
from sparsecomm.volume import bounds_of

Dense = np.ndarray[Any, Any]
MACHINES = {
    1: ("uniform:1x1",),
    4: ("uniform:2x2", "nodes:1,1,1,1", "uniform:1x4"),
    7: ("nodes:3,3,1",),
    12: ("summit:2", "uniform:4x3"),
    48: ("summit:8",),
}
EVERY = pytest.mark.parametrize("spec", [spec for specs in MACHINES.values() for spec in specs])
EACH = pytest.mark.parametrize("name", strategy_names())


def _matrix(spec: str) -> csr_array[Any]:
    matrix = read_matrix(spec)
    values = np.random.default_rng(1).integers(-4, 5, matrix.nnz).astype(np.float64)
    return csr_array((values, matrix.indices, matrix.indptr), shape=matrix.shape)


MATRICES = (_matrix("rmat:9:6:3"), _matrix("er:200:3:1")[:150], _matrix("grid2d:12"))


def _multiply(product: Product, remote: Remote, matrix: csr_array[Any], x: Dense, *, transpose: bool) -> Dense:
    """Run both plans on all ranks at once and form each product on the rank that the product names."""
    fetch, send, names = product.gather, product.scatter, ("row", "col")
    if transpose:
        fetch, send, names = send, fetch, ("col", "row")
        matrix = csr_array(matrix.T)
    y = np.zeros((int(send.offsets[-1]), x.shape[1]))
    owner = np.repeat(np.arange(product.num_ranks), np.diff(send.offsets))
    col_owner = np.repeat(np.arange(product.num_ranks), np.diff(fetch.offsets))
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    local = owner[rows] == col_owner[matrix.indices]
    np.add.at(y, rows[local], matrix.data[local, None] * x[matrix.indices[local]])
    row, col = (remote.nonzeros[name] for name in names)
    value = np.asarray(matrix[row, col]).ravel()
    have = _local_rows(fetch, x, execute(fetch, np.split(x, fetch.offsets[1:-1])))
    terms = value[:, None] * have[product.multiplier, col]
    partials = np.zeros((send.ghost_rows.size, x.shape[1]))
    key = np.repeat(np.arange(product.num_ranks), np.diff(send.ghost_indptr)) * y.shape[0] + send.ghost_rows
    own = owner[row] == product.multiplier
    np.add.at(y, row[own], terms[own])
    wanted = product.multiplier[~own].astype(np.int64) * y.shape[0] + row[~own]
    np.add.at(partials, np.searchsorted(key, wanted), terms[~own])
    sums = execute_reverse(send, np.split(partials, send.ghost_indptr[1:-1]), np.split(y, send.offsets[1:-1]))
    return np.concatenate(sums)


def _local_rows(plan: Plan, x: Dense, ghosts: list[Dense]) -> Dense:
    """Return (ranks, rows, k): what each rank has, and nan where it has nothing."""
    have = np.full((plan.num_ranks, *x.shape), np.nan)
    owner = np.repeat(np.arange(plan.num_ranks), np.diff(plan.offsets))
    have[owner, np.arange(len(x))] = x
    for rank, rows in enumerate(ghosts):
        have[rank, plan.ghost_rows[plan.ghost_indptr[rank] : plan.ghost_indptr[rank + 1]]] = rows
    return have


def _product(name: str, spec: str, matrix: csr_array[Any]) -> tuple[Product, Remote]:
    topology = Topology.parse(spec)
    remote = Remote.of(matrix, Layouts(*(Layout.block(size, topology.num_ranks) for size in matrix.shape)))
    return get_strategy(name).build(remote, topology), remote


@EACH
@EVERY
def test_all_ranks_at_once(name: str, spec: str) -> None:
    for matrix in MATRICES:
        product, remote = _product(name, spec, matrix)
        product.verify(remote)
        volume = get_strategy(name).count(remote, product.topology)
        assert product.volume() == volume
        bounds = bounds_of(remote, product.topology, Offline(product.num_ranks))
        assert volume.rows[-1] >= bounds.network
        assert max(volume.max_group_in[-1], volume.max_group_out[-1]) >= bounds.busiest_node
        rng = np.random.default_rng(2)
        x, y = (rng.integers(-9, 10, (size, 2)).astype(np.float64) for size in matrix.shape[::-1])
        np.testing.assert_array_equal(_multiply(product, remote, matrix, x, transpose=False), matrix @ x)
        np.testing.assert_array_equal(_multiply(product, remote, matrix, y, transpose=True), matrix.T @ y)


@EACH
@pytest.mark.parametrize("spec", [specs[0] for ranks, specs in MACHINES.items() if ranks <= 12])
def test_a_thread_for_each_rank(name: str, spec: str) -> None:
    matrix = MATRICES[0]
    product, remote = _product(name, spec, matrix)
    x = np.random.default_rng(3).integers(-9, 10, (matrix.shape[1], 2)).astype(np.float64)
    layout = product.layouts.rows

    def body(transport: Transport) -> None:
        own = layout.own_rows(transport.rank)
        mine = slice(own.start, own.stop)
        part = product.rank(transport.rank, remote)
        with DistMatrix(matrix[mine], part, product.topology, transport) as a:
            np.testing.assert_array_equal(a @ x[mine], (matrix @ x)[mine])
            np.testing.assert_array_equal(a.T @ x[mine], (matrix.T @ x)[mine])

    run_local(product.num_ranks, body)
