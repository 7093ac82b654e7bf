"""A rank's part of a graph as layers see it: a product for sums over neighbours, and ghosts for all other uses."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array, hstack, vstack

from sparsecomm.apps.ghost_exchange import GhostExchange
from sparsecomm.apps.matrix import DistMatrix
from sparsecomm.apps.torch.local import LocalMatrix, is_dense
from sparsecomm.apps.torch.modules import spmm
from sparsecomm.collectives.dispatch import Dispatch
from sparsecomm.collectives.executed import Executed
from sparsecomm.collectives.strategy import get_strategy
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.collectives.wire import WireDtype
from sparsecomm.layout import Layouts
from sparsecomm.pattern import Remote
from sparsecomm.plan import RankPlan
from sparsecomm.topology import Topology
from sparsecomm.typing import IntGlobal

_FETCH_COLUMNS = 64


class Graph:
    """This rank's rows of a weighted adjacency matrix.

    Args:
        rows: (own nodes, all nodes) in new numbering, columns ascending.
        layouts: who owns the nodes, as rows and as columns.
        topology: of the job.
        transport: over its ranks.
        strategy: of the product.
        width: columns that `auto` predicts for.
        wire_dtype: what rows are rounded to on their way.

    Attributes:
        matrix: the product.
        exchange: of whole ghost rows; where the product moves partial sums too, by strategy `hierarchical`.
        local: (own nodes, own and ghost nodes), every edge into an own node.
        nodes: (own and ghost nodes,) int64 in original numbering.

    Raises:
        InputError: on every rank, when the parts do not fit each other.

    Note: Collective over comm.
    """

    def __init__(
        self,
        rows: csr_array[Any],
        layouts: Layouts,
        topology: Topology,
        transport: Transport,
        *,
        strategy: str = "auto",
        width: int = 16,
        wire_dtype: WireDtype = None,
    ) -> None:
        self.matrix = DistMatrix.from_rows(
            rows, layouts, topology, transport, strategy=strategy, width=width, wire_dtype=wire_dtype
        )
        plan = self.matrix.product.gather
        if self.matrix.product.scatter.stages:
            remote = Remote.of(rows, layouts, transport.held)
            plan = get_strategy("hierarchical").build_rank(remote, topology, transport).gather
        self.exchange = GhostExchange(plan, transport, num_levels=topology.num_levels, wire_dtype=wire_dtype)
        self.local = _local(rows, plan)
        self.num_own = rows.shape[0]
        self._layout, self._wire, self._dispatches = layouts.cols, wire_dtype, list[Dispatch]()
        own = np.arange(plan.start, plan.start + plan.num_own, dtype=np.int64)
        self.nodes: IntGlobal = layouts.cols.new_to_old()[np.concatenate([own, plan.ghost_rows])]

    @property
    def executed(self) -> Executed:
        """What this rank has sent and received for the graph so far."""
        ghosts = self.exchange.executed
        done = [dispatch.executed for dispatch in self._dispatches] + ([] if ghosts is None else [ghosts])
        return sum(done, self.matrix.executed)

    @cached_property
    def local_product(self) -> LocalMatrix:
        """What multiplies rows of own and ghost nodes by `local`."""
        return LocalMatrix(self.local)

    @property
    def pass_rows(self) -> IntGlobal:
        """Rows of one product that this rank sends, (num_levels,) int64."""
        product, levels = self.matrix.product, self.matrix.topology.num_levels
        return product.gather.rows(levels)[0] + product.scatter.rows(levels)[1]

    def sum_neighbours(self, x: torch.Tensor) -> torch.Tensor:
        """Return A @ X, (own nodes, k).

        Note: Collective over comm.
        """
        return spmm(self.matrix, x)

    def dispatch(self, width: int, dtype: npt.DTypeLike) -> Dispatch:
        """Return what fetches rows of other nodes at every call, closed with the graph.

        Args:
            width: columns of the rows.
            dtype: of the rows.

        Note: Collective over comm.
        """
        topology, transport = self.matrix.topology, self.matrix.transport
        made = Dispatch(self._layout, topology, transport, width=width, dtype=dtype, wire_dtype=self._wire)
        self._dispatches.append(made)
        return made

    def with_ghosts(self, features: csr_array[Any]) -> csr_array[Any] | npt.NDArray[Any]:
        """Return the rows of own and ghost nodes, given those of the own ones; an array, if most entries are not zero.

        A few columns travel at a time.

        Note: Collective over comm.
        """
        columns, blocks = features.tocsc(), range(0, features.shape[1], _FETCH_COLUMNS)
        fetched = (self._fetched(columns[:, begin : begin + _FETCH_COLUMNS]) for begin in blocks)
        if is_dense(features):
            held = np.empty((len(self.nodes), features.shape[1]), dtype=features.dtype)
            held[: self.num_own] = features.toarray()
            for begin, block in zip(blocks, fetched, strict=True):
                held[self.num_own :, begin : begin + _FETCH_COLUMNS] = block
            return held
        parts = [csr_array(block).tocsc() for block in fetched]
        return csr_array(vstack([features, hstack(parts, format="csr")], format="csr"))

    def _fetched(self, columns: Any) -> npt.NDArray[Any]:
        return self.exchange.forward(np.ascontiguousarray(columns.toarray()))

    def close(self) -> None:
        """Free communicators and buffers.

        Note: Collective over comm.
        """
        for dispatch in self._dispatches:
            dispatch.close()
        self.exchange.close()
        self.matrix.close()


def _local(rows: csr_array[Any], plan: RankPlan) -> csr_array[Any]:
    cols: npt.NDArray[Any] = rows.indices.astype(np.int64)
    own = (cols >= plan.start) & (cols < plan.start + plan.num_own)
    local = np.where(own, cols - plan.start, plan.num_own + np.searchsorted(plan.ghost_rows, cols))
    return csr_array((rows.data, local, rows.indptr), shape=(rows.shape[0], plan.num_own + plan.num_ghost))
