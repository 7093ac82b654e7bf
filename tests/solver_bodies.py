"""Solvers on vectors spread over ranks: one body for threads and for MPI, held against scipy on the whole matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import cg as scipy_cg
from scipy.sparse.linalg import gmres, lsqr

from sparsecomm.apps.matrix import DistMatrix
from sparsecomm.apps.solvers import cg, dot, linear_operator, norm
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.errors import InputError
from sparsecomm.io import read_matrix
from sparsecomm.layout import Layout, Layouts
from tests.matrix_cases import Case, cases, dist, owners, whole_numbers
from tests.planning_bodies import topologies


def laplacians(transport: Transport, name: str = "grid2d:8:10") -> Iterator[Case]:
    """Yield positive definite matrices: real in blocks, complex Hermitian with rows in any order."""
    num_ranks, real = transport.num_ranks, read_matrix(name)
    size = real.shape[0]
    block, mixed = Layout.block(size, num_ranks), owners(size, num_ranks, seed=6)
    yield Case("real", real, Layouts(block, block), topologies(num_ranks)[2])
    turn = diags_array(np.exp(1j * np.arange(size)))
    yield Case("complex", csr_array(turn @ real @ turn.conj()), Layouts(mixed, mixed), topologies(num_ranks)[3])


def check_cg(transport: Transport) -> None:
    for case in laplacians(transport):
        b = np.random.default_rng(1).standard_normal(80).astype(case.matrix.dtype)
        expected, _ = scipy_cg(case.matrix, b, rtol=1e-12)
        mine = case.mine(b, "rows", transport.rank)
        with dist(case, "hierarchical", transport) as a:
            x, info = cg(a, mine, rtol=1e-12)
            assert info == 0
            np.testing.assert_allclose(x, case.mine(expected, "cols", transport.rank), rtol=1e-9, atol=1e-9)
            assert norm(mine - a @ x, transport) <= 1e-11 * norm(mine, transport)
            again, info = cg(a, mine, x, rtol=1e-9)
            assert info == 0
            np.testing.assert_array_equal(again, x)
            assert cg(a, mine, maxiter=2)[1] == 2
            assert not cg(a, 0 * mine)[0].any()


def check_cg_refuses(transport: Transport) -> None:
    """What does not fit one rank is refused on all, and so is a matrix that is not positive definite."""
    permuted, rectangular = cases(transport.num_ranks)[:2]
    last = transport.rank == transport.num_ranks - 1
    with dist(rectangular, "direct", transport) as a, pytest.raises(InputError, match="one layout"):
        cg(a, np.ones(a.product.scatter.num_own))
    with dist(permuted, "direct", transport) as a, pytest.raises(InputError, match="rows of b"):
        cg(a, np.ones(a.product.scatter.num_own + last))
    real = next(laplacians(transport))
    negative = Case("negative", -real.matrix, real.layouts, real.topology)
    with dist(negative, "direct", transport) as a, pytest.raises(InputError, match="positive definite"):
        cg(a, np.ones(a.product.scatter.num_own))


def check_dot(transport: Transport) -> None:
    case = cases(transport.num_ranks)[0]
    x, y = (whole_numbers((40,), np.complex128, seed) for seed in (1, 2))
    mine = [case.mine(one, "rows", transport.rank) for one in (x, y)]
    assert dot(*mine, transport) == np.vdot(x, y)


def check_linear_operator(transport: Transport) -> None:
    """Products of whole vectors and blocks in original numbering, also with the adjoint, on every rank."""
    for case in cases(transport.num_ranks, np.complex128):
        x, y = (whole_numbers((size, 2), np.complex128, 3) for size in case.matrix.shape[::-1])
        with dist(case, "reduce", transport) as a:
            operator = linear_operator(a)
            np.testing.assert_array_equal(operator @ x, case.matrix @ x)
            np.testing.assert_array_equal(operator @ x[:, 0], case.matrix @ x[:, 0])
            np.testing.assert_array_equal(operator.H @ y, case.matrix.conj().T @ y)
            np.testing.assert_array_equal(operator.H @ y[:, 1], case.matrix.conj().T @ y[:, 1])


def check_scipy_solvers(transport: Transport) -> None:
    for case in laplacians(transport, "grid2d:4:5"):
        b = np.random.default_rng(2).standard_normal(20).astype(case.matrix.dtype)
        with dist(case, "direct", transport) as a:
            operator = a.as_linear_operator()
            assert (operator.shape, operator.dtype) == (case.matrix.shape, case.matrix.dtype)
            x, info = gmres(operator, b, rtol=1e-10, restart=20)
            assert info == 0
            assert np.linalg.norm(case.matrix @ x - b) <= 1e-9 * np.linalg.norm(b)
            x = lsqr(operator, b, atol=1e-12, btol=1e-12)[0]
            assert np.linalg.norm(case.matrix @ x - b) <= 1e-8 * np.linalg.norm(b)


def check_from_rows(transport: Transport) -> None:
    """A matrix planned in the job solves as one planned before."""
    case = next(laplacians(transport))
    b = case.mine(np.arange(80.0), "rows", transport.rank)
    with DistMatrix.from_rows(case.rows(transport.rank), case.layouts, case.topology, transport, width=1) as a:
        x, info = cg(a, b, rtol=1e-12)
    assert info == 0
    expected = scipy_cg(case.matrix, np.arange(80.0), rtol=1e-12)[0]
    np.testing.assert_allclose(x, case.mine(expected, "cols", transport.rank), rtol=1e-8)


BODIES: tuple[Callable[[Transport], None], ...] = tuple(
    body for name, body in list(globals().items()) if name.startswith("check_")
)
