"""A plan as an exchange of any blocks: what PyTorch, JAX and numpy work with alike."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsecomm.apps.handles import handle_of
from sparsecomm.apps.matrix import DistMatrix
from sparsecomm.arrays import check_array
from sparsecomm.collectives.exchange import Exchange
from sparsecomm.collectives.executed import Executed
from sparsecomm.collectives.guard import ClosedTogether
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.collectives.transport.open import open_transport
from sparsecomm.collectives.wire import WireDtype
from sparsecomm.errors import InputError
from sparsecomm.plan import RankPlan

Dense = npt.NDArray[Any]


class GhostExchange(ClosedTogether):
    """A plan ready for blocks of any width and dtype; the buffers of each are made when it is first used.

    Args:
        plan: of this rank.
        comm: an mpi4py communicator or a transport, duplicated; None is the world.
        num_levels: of the topology; None takes as many as the stages name.
        wire_dtype: what rows are rounded to on their way.

    Attributes:
        handle: stands for this exchange in calls of the custom operators.

    Note: Collective over comm.
    """

    def __init__(
        self,
        plan: RankPlan,
        comm: object | None = None,
        *,
        num_levels: int | None = None,
        wire_dtype: WireDtype = None,
    ) -> None:
        self.plan, self._num_levels, self._wire = plan, num_levels, wire_dtype
        self._transport: Transport = open_transport(comm)
        self._exchanges: dict[tuple[int, np.dtype[Any]], Exchange] = {}
        self._opened: list[Exchange] = []
        self.handle = handle_of(self)

    @staticmethod
    def of(matrix: DistMatrix) -> GhostExchange:
        """Return an exchange of the ghost columns of a matrix.

        Note: Collective over comm.
        """
        return GhostExchange(matrix.product.gather, matrix.transport, num_levels=matrix.topology.num_levels)

    def __repr__(self) -> str:
        return f"GhostExchange(rank={self.plan.rank}, own={self.plan.num_own}, ghosts={self.plan.num_ghost})"

    @property
    def executed(self) -> Executed | None:
        """What this rank has sent and received so far; None before the first run."""
        done = [exchange.executed for exchange in self._opened]
        return sum(done[1:], done[0]) if done else None

    def forward(self, x: Dense) -> Dense:
        """Return (num_ghost, ...) new rows, given (num_own, ...) own ones.

        Raises:
            InputError: another number of rows.

        Note: Collective over comm.
        """
        flat = self._flat(x, self.plan.num_own, "own")
        ghosts = np.empty((self.plan.num_ghost, flat.shape[1]), dtype=x.dtype)
        if self.plan.stages:
            self._exchange(flat).start(flat).wait(ghosts)
        return ghosts.reshape(self.plan.num_ghost, *x.shape[1:])

    def reverse(self, partials: Dense) -> Dense:
        """Return (num_own, ...) new rows, the sums of what all ranks give for them.

        Raises:
            InputError: another number of rows.

        Note: Collective over comm.
        """
        flat = self._flat(partials, self.plan.num_ghost, "ghost")
        sums = np.zeros((self.plan.num_own, flat.shape[1]), dtype=partials.dtype)
        if self.plan.stages:
            self._exchange(flat).reverse(flat, sums)
        return sums.reshape(self.plan.num_own, *partials.shape[1:])

    def opened(self, width: int, dtype: npt.DTypeLike, *, depth: int = 1) -> Exchange:
        """Return another exchange of the plan, counted and closed with this one.

        Args:
            width: columns of its blocks.
            dtype: of its rows.
            depth: runs of a direction that may be under way at once.

        Note: Collective over comm.
        """
        made = Exchange(
            self.plan,
            self._transport,
            width,
            dtype,
            wire_dtype=self._wire,
            depth=depth,
            num_levels=self._num_levels,
        )
        self._opened.append(made)
        return made

    def close(self) -> None:
        """Free communicators and buffers.

        Note: Collective over comm.
        """
        for exchange in self._opened:
            exchange.close()
        self._exchanges, self._opened = {}, []
        self._transport.close()

    def _flat(self, x: Dense, rows: int, kind: str) -> Dense:
        check_array(x)
        if x.ndim < 1 or x.shape[0] != rows:
            raise InputError(f"rank {self.plan.rank} has {rows} {kind} rows, not an array of shape {x.shape}")
        return x.reshape(rows, math.prod(x.shape[1:]))

    def _exchange(self, x: Dense) -> Exchange:
        key = (x.shape[1], x.dtype)
        if key not in self._exchanges:
            self._exchanges[key] = self.opened(*key)
        return self._exchanges[key]
