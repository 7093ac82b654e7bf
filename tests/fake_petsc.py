"""As much of petsc4py as the library calls, over a transport instead of MPI."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from sparsecomm.collectives.transport.base import Transport
from sparsecomm.table import Table


class Mat:
    """The rows of one rank."""

    def __init__(self) -> None:
        self.kind, self.assembled = "mpiaij", False

    def createAIJ(self, size: Any, csr: Any, comm: Transport) -> Mat:
        self._comm = comm
        self._csr = csr
        self._sizes = [mine for mine, _ in size]
        return self

    def assemble(self) -> None:
        self.assembled = True
        counts = [self._comm.collect(np.array([mine])) for mine in self._sizes]
        # PETSc has 32-bit integers in most installations.
        self._ranges = [np.concatenate([[0], np.cumsum(one)]).astype(np.int32) for one in counts]

    def getType(self) -> str:
        return self.kind

    def isAssembled(self) -> bool:
        return self.assembled

    def getComm(self) -> Any:
        return SimpleNamespace(getSize=lambda: self._comm.num_ranks, tompi4py=lambda: self._comm)

    def getOwnershipRanges(self) -> Any:
        return self._ranges[0]

    def getOwnershipRangesColumn(self) -> Any:
        return self._ranges[1]

    def getValuesCSR(self) -> Any:
        return self._csr


class SF:
    """Which roots the leaves of one rank copy."""

    def create(self, comm: Transport) -> SF:
        self._comm, self._ready = comm, False
        return self

    def setGraph(self, nroots: int, local: Any, remote: Any) -> None:
        assert local.dtype == remote.dtype == np.int32
        assert remote.shape == (2 * local.size,)
        self._graph = nroots, local, remote

    def setUp(self) -> None:
        self._ready = True

    def getGraph(self) -> Any:
        return self._graph

    def destroy(self) -> None:
        self._ready = False

    def bcastBegin(self, unit: Any, roots: Any, leaves: Any, op: Any) -> None:
        assert self._ready

    def bcastEnd(self, unit: Any, roots: Any, leaves: Any, op: Any) -> None:
        _, local, remote = self._graph
        owner, place = remote.reshape(-1, 2).T
        me = np.full(owner.size, self._comm.rank, np.int32)
        asked = self._comm.route(Table(me, {"place": place.astype(np.int64), "leaf": local, "from": me}), owner)
        answers = Table(asked.rank, {"leaf": asked["leaf"], "value": roots[asked["place"]]})
        come = self._comm.route(answers, asked["from"])
        leaves[come["leaf"]] = come["value"]


def module() -> ModuleType:
    """Return what stands for the module `petsc4py`."""
    made = ModuleType("petsc4py")
    made.PETSc = SimpleNamespace(Mat=Mat, SF=SF, IntType=np.int32)  # type: ignore[attr-defined]
    return made
