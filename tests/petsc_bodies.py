"""What matrices and star forests of PETSc must do, given petsc4py or what stands for it, collective over the ranks."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array, random_array

from sparsecomm.apps.matrix import DistMatrix
from sparsecomm.apps.petsc import from_petsc, to_petsc_sf
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.layout import Layout

ROWS, COLS = 37, 23


class Kit(NamedTuple):
    """PETSc, the communicator that it takes, and the two words of MPI that a broadcast takes."""

    petsc: Any
    comm: Any
    unit: Any = None
    replace: Any = None


def whole(shape: tuple[int, int]) -> csr_array[Any]:
    drawn = random_array(shape, density=0.2, format="csr", rng=np.random.default_rng(3))
    return csr_array(drawn)


def check_product(kit: Kit, transport: Transport) -> None:
    """A @ X and A.T @ Y are those of the whole matrix, square or not; PETSc gives rows to ranks."""
    for shape in ((ROWS, COLS), (ROWS, ROWS)):
        expected = whole(shape)
        with read(kit, transport, expected) as matrix:
            layouts = matrix.product.layouts
            assert (layouts.rows is layouts.cols) == (shape[0] == shape[1])
            rows, cols = (np.array(layout.own_rows(transport.rank), dtype=int) for layout in layouts)
            x, y = (np.random.default_rng(n).random((n, 3)) for n in shape[::-1])
            assert np.allclose(matrix @ x[cols], (expected @ x)[rows], rtol=1e-13, atol=1e-13)
            assert np.allclose(matrix.T @ y[rows], (expected.T @ y)[cols], rtol=1e-13, atol=1e-13)


def check_forest(kit: Kit, transport: Transport) -> None:
    """A broadcast of the forest writes the ghosts, and only these; whatever plan they were taken of."""
    expected = whole((ROWS, COLS))
    with read(kit, transport, expected) as matrix:
        plan, layout = matrix.product.gather, matrix.product.layouts.cols
        forest = to_petsc_sf(plan, layout, kit.comm)
        roots, leaves, remote = forest.getGraph()
        assert roots == plan.num_own
        assert np.array_equal(leaves, np.arange(plan.num_own, plan.num_own + plan.num_ghost))
        assert len(np.asarray(remote).reshape(-1, 2)) == plan.num_ghost
        own = np.arange(plan.start, plan.start + plan.num_own, dtype=np.float64)
        slots = np.concatenate([-own, np.full(plan.num_ghost, -1.0)])
        forest.bcastBegin(kit.unit, own, slots, kit.replace)
        forest.bcastEnd(kit.unit, own, slots, kit.replace)
        assert np.array_equal(slots, np.concatenate([-own, plan.ghost_rows]))
        forest.destroy()


def read(kit: Kit, transport: Transport, expected: csr_array[Any]) -> DistMatrix:
    """Give a matrix to PETSc, which splits it over the ranks, and read it back."""
    num_rows, num_cols = expected.shape
    layout = Layout.block(num_rows, transport.num_ranks)
    own = layout.own_rows(transport.rank)
    mine = csr_array(expected[own.start : own.stop])
    indptr, indices = (part.astype(kit.petsc.IntType) for part in (mine.indptr, mine.indices))
    cols = len(Layout.block(num_cols, transport.num_ranks).own_rows(transport.rank))
    size = ((len(own), num_rows), (cols, num_cols))
    mat = kit.petsc.Mat().createAIJ(size=size, csr=(indptr, indices, mine.data), comm=kit.comm)
    mat.assemble()
    return from_petsc(mat, comm=transport, strategy="hierarchical")


BODIES = (check_product, check_forest)
