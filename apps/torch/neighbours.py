"""Rows of neighbours as layers get them: as they are now, as they were some steps ago, or those of a drawn part."""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from sparsecomm.apps.gnn.settings import Settings
from sparsecomm.apps.torch.arrays import as_array, as_tensor, without_bfloat16
from sparsecomm.apps.torch.coins import Coins
from sparsecomm.apps.torch.dispatch import fetch
from sparsecomm.apps.torch.exchange import gather
from sparsecomm.apps.torch.graph import Graph
from sparsecomm.collectives.dispatch import Dispatch
from sparsecomm.collectives.exchange import Exchange
from sparsecomm.collectives.pending import Pending

Dense = npt.NDArray[Any]


class Neighbours(Protocol):
    """Where a layer has the rows of neighbours from; `step` is None where nothing is trained."""

    def ghosts(self, x: torch.Tensor, step: int | None) -> torch.Tensor:
        """Return the rows of ghost nodes, (ghost nodes, k), given those of the own ones.

        Note: Collective over comm.
        """

    def sums(self, x: torch.Tensor, step: int | None) -> torch.Tensor:
        """Return A @ X of the own nodes.

        Note: Collective over comm.
        """

    def close(self) -> None:
        """End what is under way.

        Note: Collective over comm.
        """


def neighbours_of(graph: Graph, settings: Settings, layer: int) -> Neighbours:
    """Return what the settings ask for.

    Note: Collective over comm.
    """
    if settings.stale:
        return Stale(graph, settings.stale)
    if settings.boundary_sample < 1:
        return Sampled(graph, settings.boundary_sample, settings.seed, layer)
    return Fresh(graph)


class Fresh:
    """Rows as they are now.

    Args:
        graph: this rank's part.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def ghosts(self, x: torch.Tensor, step: int | None) -> torch.Tensor:
        return gather(self.graph.exchange, x)

    def sums(self, x: torch.Tensor, step: int | None) -> torch.Tensor:
        return self.graph.sum_neighbours(x)

    def close(self) -> None:
        """Do nothing."""


class _Approximate(Fresh):
    """Other rows of ghosts in training; evaluation is exact."""

    def ghosts(self, x: torch.Tensor, step: int | None) -> torch.Tensor:
        return super().ghosts(x, step) if step is None else self._trained_on(without_bfloat16(x), step)

    def sums(self, x: torch.Tensor, step: int | None) -> torch.Tensor:
        if step is None:
            return super().sums(x, step)
        return self.graph.local_product(torch.cat([x, self.ghosts(x, step)]))

    def _trained_on(self, x: torch.Tensor, step: int) -> torch.Tensor:
        raise NotImplementedError


class Stale(_Approximate):
    """Rows of ghosts, and the gradients that come back for own ones, as they were some steps ago.

    They travel while the steps between are computed. Until there are so old ones those of the first step are used.

    Args:
        graph: this rank's part.
        age: steps; with 0 all is as with `Fresh`.

    Source: Wan et al., "PipeGCN: efficient full-graph training of graph convolutional networks with pipelined feature
        communication", 2022, without smoothing; its age is 1.
    """

    def __init__(self, graph: Graph, age: int) -> None:
        super().__init__(graph)
        self._age = age
        self._moves: dict[tuple[int, np.dtype[Any]], tuple[_Delayed, _Delayed]] = {}

    def forth(self, x: Dense) -> Dense:
        """Return rows of ghosts, given those of own nodes.

        Note: Collective over comm.
        """
        return self._move(x)[0](x)

    def back(self, partials: Dense) -> Dense:
        """Return sums for own nodes, given partial rows of ghosts.

        Note: Collective over comm.
        """
        return self._move(partials)[1](partials)

    def _trained_on(self, x: torch.Tensor, step: int) -> torch.Tensor:
        ghosts: torch.Tensor = _Late.apply(x, self)
        return ghosts

    def _move(self, x: Dense) -> tuple[_Delayed, _Delayed]:
        key = (x.shape[1], x.dtype)
        if key not in self._moves:
            exchange = self.graph.exchange.opened(*key, depth=self._age + 1)
            self._moves[key] = _Delayed(exchange, self._age), _Delayed(exchange, self._age, reverse=True)
        return self._moves[key]

    def close(self) -> None:
        """Wait for what is under way.

        Note: Collective over comm.
        """
        for both in self._moves.values():
            for move in both:
                move.drain()


class _Delayed:
    """The runs of one direction of an exchange, each waited for some runs later."""

    def __init__(self, exchange: Exchange, age: int, *, reverse: bool = False) -> None:
        self._exchange, self._age, self._reverse = exchange, age, reverse
        self._runs: deque[Pending] = deque()

    def __call__(self, rows: Dense) -> Dense:
        if len(self._runs) > self._age:
            self._runs.popleft()
        self._runs.append(self._exchange.start_reverse(rows) if self._reverse else self._exchange.start(rows))
        return self._runs[0].wait().copy()

    def drain(self) -> None:
        for run in self._runs:
            run.wait()
        self._runs.clear()


class _Late(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, stale: Stale) -> torch.Tensor:
        ctx.stale = stale
        return as_tensor(stale.forth(as_array(x)))

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return as_tensor(ctx.stale.back(as_array(grad))), None


class Sampled(_Approximate):
    """The rows of a part of the ghosts, other ones in every step and layer; these count for the others as well.

    A node is fetched by all ranks or by none, as a coin for the node falls. Rows are divided by the share, so that sums
    over neighbours are right in the mean.

    Args:
        graph: this rank's part.
        share: of the ghosts, above 0 and at most 1.
        seed: of the run.
        layer: another one for every layer.

    Source: Wan et al., "BNS-GCN: efficient full-graph training of graph convolutional networks with
        partition-parallelism and random boundary node sampling", 2022; there ranks draw for themselves, and all layers
        of a step take the same nodes.

    Note: Collective over comm.
    """

    def __init__(self, graph: Graph, share: float, seed: int, layer: int) -> None:
        super().__init__(graph)
        self._rate, self._rows = 1 - share, graph.exchange.plan.ghost_rows
        nodes = graph.nodes[graph.num_own :]
        self._coins = Coins(seed, nodes, np.full(nodes.size, layer))
        self._ones = np.ones(nodes.size)
        self._dispatches: dict[tuple[int, torch.dtype], Dispatch] = {}

    def _trained_on(self, x: torch.Tensor, step: int) -> torch.Tensor:
        taken = np.flatnonzero(self._coins.dropped(self._ones, step, self._rate))
        rows = fetch(self._dispatch(x), x, as_tensor(self._rows[taken])) / (1 - self._rate)
        return x.new_zeros(self._rows.size, x.shape[1]).index_copy(0, as_tensor(taken), rows)

    def _dispatch(self, x: torch.Tensor) -> Dispatch:
        key = (x.shape[1], x.dtype)
        if key not in self._dispatches:
            self._dispatches[key] = self.graph.dispatch(x.shape[1], as_array(x).dtype)
        return self._dispatches[key]
