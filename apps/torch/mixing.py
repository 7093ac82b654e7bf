"""A X W of one layer, in the order that moves least, with dropout of X."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch
from scipy.sparse import csr_array

from sparsecomm.apps.gnn.orders import Order
from sparsecomm.apps.torch.arrays import as_tensor
from sparsecomm.apps.torch.coins import Coins, RowDropout
from sparsecomm.apps.torch.graph import Graph
from sparsecomm.apps.torch.local import local_matrix
from sparsecomm.apps.torch.neighbours import Neighbours

Pair = tuple[torch.Tensor, torch.Tensor | None]


class InputMix:
    """The first layer: X is sparse and never changes, so that the rows of ghosts need to come only once.

    Args:
        graph: this rank's part.
        features: (own nodes, f) in new numbering.
        order: `cached` fetches the features of ghosts now.
        neighbours: where rows of others come from, unless cached.
        seed: of the run.
        rate: of dropout.

    Note: Collective over comm.
    """

    def __init__(
        self, graph: Graph, features: csr_array[Any], order: Order, neighbours: Neighbours, seed: int, rate: float
    ) -> None:
        self._graph, self._order, self._neighbours, self._rate = graph, order, neighbours, rate
        held = graph.with_ghosts(features) if order == "cached" else features
        self._features, self._coins = local_matrix(held), None
        if rate:
            rows, cols = self._features.entries()
            self._coins = Coins(seed, graph.nodes[rows], cols)
        # Without dropout A X itself never changes.
        sums: Any = graph.local @ held if order == "cached" and not rate else None
        self._sums = None if sums is None else local_matrix(sums)

    def transformed(self, _: None, weight: torch.Tensor, step: int | None) -> torch.Tensor:
        """Return X W of own and ghost nodes.

        Note: Collective over comm, unless cached.
        """
        held = self._features(weight, self._values(step))
        return held if self._order == "cached" else torch.cat([held, self._neighbours.ghosts(held, step)])

    def mixed(self, _: None, weight: torch.Tensor, own_weight: torch.Tensor | None, step: int | None) -> Pair:
        """Return A X W and, if `own_weight` is given, X times that, both of the own nodes.

        Args:
            weight: (f, k).
            own_weight: (f, j); may be `weight` itself.
            step: that decides what is dropped; None drops nothing.

        Note: Collective over comm, unless cached.
        """
        num_own, values = self._graph.num_own, self._values(step)
        if self._order == "aggregate":
            dense = as_tensor(self._features.dense(values))
            return _mixed_first(self._neighbours, dense, weight, own_weight, step)
        if self._sums is not None:
            own = None if own_weight is None else self._features(own_weight)[:num_own]
            return self._sums(weight), own
        both, width = _joined(weight, own_weight)
        held = self._features(both, values)
        left, own = _parted(held, width, own_weight is not None)
        sums = self._graph.local_product(left) if self._order == "cached" else self._neighbours.sums(left, step)
        return sums, None if own is None else own[:num_own]

    def _values(self, step: int | None) -> npt.NDArray[Any]:
        values = self._features.values
        if step is None or self._coins is None:
            return values
        return self._coins.dropped(values, step, self._rate)


class HiddenMix:
    """A later layer: X is dense and changes in every step.

    Args:
        graph: this rank's part.
        order: `transform` or `aggregate`.
        neighbours: where rows of others come from.
        seed: of the run.
        layer: its number.
        rate: of dropout.
    """

    def __init__(self, graph: Graph, order: Order, neighbours: Neighbours, seed: int, layer: int, rate: float) -> None:
        self._order, self._neighbours = order, neighbours
        self._dropout = RowDropout(seed, layer, graph.nodes[: graph.num_own], rate)

    def transformed(self, h: torch.Tensor, weight: torch.Tensor, step: int | None) -> torch.Tensor:
        """Return H W of own and ghost nodes.

        Note: Collective over comm.
        """
        own = self._dropout(h, step) @ weight
        return torch.cat([own, self._neighbours.ghosts(own, step)])

    def mixed(self, h: torch.Tensor, weight: torch.Tensor, own_weight: torch.Tensor | None, step: int | None) -> Pair:
        """Return A H W and, if `own_weight` is given, H times that; see `InputMix.mixed`.

        Note: Collective over comm.
        """
        h = self._dropout(h, step)
        if self._order == "aggregate":
            return _mixed_first(self._neighbours, h, weight, own_weight, step)
        both, width = _joined(weight, own_weight)
        left, own = _parted(h @ both, width, own_weight is not None)
        return self._neighbours.sums(left, step), own


def _mixed_first(
    neighbours: Neighbours, h: torch.Tensor, weight: torch.Tensor, own_weight: torch.Tensor | None, step: int | None
) -> Pair:
    own = None if own_weight is None else h @ own_weight
    return neighbours.sums(h, step) @ weight, own


def _joined(weight: torch.Tensor, own_weight: torch.Tensor | None) -> tuple[torch.Tensor, int]:
    """Return both weights side by side, once where they are the same, and how many columns the first has."""
    if own_weight is None or own_weight is weight:
        return weight, weight.shape[1]
    return torch.cat([weight, own_weight], dim=1), weight.shape[1]


def _parted(product: torch.Tensor, width: int, wanted: bool) -> Pair:
    """Return the columns of both weights of `_joined`; the first one's again where they were the same."""
    left = product[:, :width]
    return left, (product[:, width:] if product.shape[1] > width else left) if wanted else None
