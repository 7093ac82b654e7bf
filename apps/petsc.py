"""Between PETSc and this library: its matrices to ours, our exchanges to its star forests; by petsc4py."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from sparsecomm.apps.matrix import DistMatrix
from sparsecomm.collectives.strategy import Strategy
from sparsecomm.collectives.transport.base import Transport, agreed
from sparsecomm.collectives.transport.open import detect_topology, open_transport
from sparsecomm.collectives.wire import WireDtype
from sparsecomm.errors import InputError
from sparsecomm.layout import Layout, Layouts
from sparsecomm.plan import RankPlan
from sparsecomm.plan_cache import PlanCache
from sparsecomm.topology import Topology
from sparsecomm.typing import IntGlobal


def from_petsc(
    mat: Any,
    topology: Topology | None = None,
    comm: object | None = None,
    *,
    strategy: str | Strategy = "auto",
    width: int = 64,
    wire_dtype: WireDtype = None,
    plans: PlanCache | None = None,
) -> DistMatrix:
    """Return a distributed matrix with the rows, the values and the ownership of a PETSc matrix.

    Args:
        mat: a `petsc4py.PETSc.Mat` of an AIJ type, assembled; its values are copied.
        topology: of the job; None finds it.
        comm: an mpi4py communicator or a transport over the ranks of `mat`; None is the communicator of `mat`.
        strategy, width, wire_dtype, plans: as in `DistMatrix.from_rows`.

    Raises:
        InputError: on every rank, when the matrix is of another type or not assembled, or the ranks do not fit.

    Note: Collective over comm.
    """
    transport = open_transport(mat.getComm().tompi4py() if comm is None else comm)
    transport.agree(_unreadable(mat, transport))
    layouts = _layouts(mat)
    indptr, indices, values = mat.getValuesCSR()
    rows = csr_array((values, indices, indptr), shape=(indptr.size - 1, layouts.cols.num_rows))
    found = topology or detect_topology(transport)
    matrix = DistMatrix.from_rows(
        rows, layouts, found, transport, strategy=strategy, width=width, wire_dtype=wire_dtype, plans=plans
    )
    transport.close()
    return matrix


def to_petsc_sf(plan: RankPlan, layout: Layout, comm: object | None = None) -> Any:
    """Return a star forest that fetches the ghost rows of a plan straight from their owners, in one step.

    Its roots are the own rows of every rank. Its leaves are the ghost slots: data of leaves are the rows that a rank
    owns followed by its ghosts, `plan.num_own + plan.num_ghost` units.

    Args:
        plan: of this rank, such as `matrix.product.gather`; only its slots are used, not its stages.
        layout: who owns the rows, such as `matrix.product.layouts.cols`.
        comm: an mpi4py communicator; None is the world.

    Returns:
        A `petsc4py.PETSc.SF`, set up; `destroy` is the caller's.

    Raises:
        InputError: on every rank, when petsc4py is not installed or the layout is not that of the plan.

    Note: Collective over comm.
    """
    petsc = _petsc()
    transport = open_transport(comm)
    remote = agreed(transport, lambda: _roots(plan, layout, int(np.iinfo(petsc.IntType).max)))
    transport.close()
    leaves = np.arange(plan.num_own, plan.num_own + plan.num_ghost, dtype=petsc.IntType)
    forest = petsc.SF().create(comm)
    forest.setGraph(plan.num_own, leaves, remote.astype(petsc.IntType))
    forest.setUp()
    return forest


def _unreadable(mat: Any, transport: Transport) -> InputError | None:
    kind = str(mat.getType())
    if re.fullmatch(r"(seq|mpi)?aij\w*", kind) is None:
        return InputError(f"from_petsc reads matrices of the AIJ types, not {kind}; give mat.convert('aij')")
    if not mat.isAssembled():
        return InputError("this PETSc matrix is not assembled; call mat.assemble() first")
    if mat.getComm().getSize() != transport.num_ranks:
        return InputError(
            f"this PETSc matrix is spread over {mat.getComm().getSize()} ranks, but comm has {transport.num_ranks}; "
            "give the communicator that it was made on"
        )
    return None


def _layouts(mat: Any) -> Layouts:
    rows, cols = (Layout(np.array(ranges)) for ranges in (mat.getOwnershipRanges(), mat.getOwnershipRangesColumn()))
    return Layouts(rows, rows if np.array_equal(rows.offsets, cols.offsets) else cols)


def _roots(plan: RankPlan, layout: Layout, most: int) -> IntGlobal:
    """Return the owner of every ghost row and its place there, (2 num_ghost,)."""
    own = layout.own_rows(plan.rank)
    if (own.start, len(own)) != (plan.start, plan.num_own):
        raise InputError(
            f"the plan of rank {plan.rank} owns {plan.num_own} rows from {plan.start} on, but the layout gives it "
            f"{len(own)} from {own.start} on; give the layout that the plan was made for"
        )
    if plan.num_own + plan.num_ghost > most:
        raise InputError(f"rank {plan.rank} has more slots than the integers of this PETSc can number, {most}")
    owner = layout.owner(plan.ghost_rows)
    return np.stack([owner, plan.ghost_rows - layout.offsets[owner]], axis=1).reshape(-1)


def _petsc() -> Any:
    try:
        from petsc4py import PETSc
    except ImportError as err:
        raise InputError(
            "a star forest of PETSc needs petsc4py, which cannot be loaded here: install sparsecomm[petsc], "
            "built with the MPI of the job"
        ) from err
    return PETSc
