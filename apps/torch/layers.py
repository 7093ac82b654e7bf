"""Layers of graph neural networks, in which only `mixing` knows that nodes live on other ranks."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from sparsecomm.apps.torch.arrays import as_tensor, without_bfloat16
from sparsecomm.apps.torch.coins import Coins
from sparsecomm.apps.torch.graph import Graph
from sparsecomm.apps.torch.mixing import HiddenMix, InputMix

Mix = InputMix | HiddenMix


def glorot(shape: tuple[int, ...], random: torch.Generator, dtype: torch.dtype) -> nn.Parameter:
    """Return a weight drawn evenly between plus and minus sqrt(6 / (f_in + f_out)).

    Source: Glorot, Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010.
    """
    bound = (6.0 / (shape[-2] + shape[-1])) ** 0.5
    drawn = torch.rand(shape, generator=random, dtype=torch.float64) * (2 * bound) - bound
    return nn.Parameter(drawn.to(dtype))


class GcnLayer(nn.Module):
    """A X W, A normalised on both sides.

    Source: Kipf, Welling, "Semi-supervised classification with graph convolutional networks", 2017, equation 2.
    """

    def __init__(self, f_in: int, f_out: int, random: torch.Generator, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = glorot((f_in, f_out), random, dtype)

    def forward(self, mix: Mix, h: torch.Tensor | None, step: int | None) -> torch.Tensor:
        return mix.mixed(h, self.weight, None, step)[0]


class SageLayer(nn.Module):
    """X W_own + A X W + b, A the mean over neighbours.

    Source: Hamilton, Ying, Leskovec, "Inductive representation learning on large graphs", 2017, mean aggregator.
    """

    def __init__(self, f_in: int, f_out: int, random: torch.Generator, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight, self.own_weight = (glorot((f_in, f_out), random, dtype) for _ in range(2))
        self.bias = nn.Parameter(torch.zeros(f_out, dtype=dtype))

    def forward(self, mix: Mix, h: torch.Tensor | None, step: int | None) -> torch.Tensor:
        neighbours, own = mix.mixed(h, self.weight, self.own_weight, step)
        return neighbours + own + self.bias


class GinLayer(nn.Module):
    """relu((A X + (1 + eps) X) W_1 + b_1) W_2 + b_2, A the sum over neighbours, eps learned.

    Source: Xu, Hu, Leskovec, Jegelka, "How powerful are graph neural networks?", 2019, equation 4.1.
    """

    def __init__(self, f_in: int, f_out: int, random: torch.Generator, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight, self.second = glorot((f_in, f_out), random, dtype), glorot((f_out, f_out), random, dtype)
        self.bias, self.second_bias = (nn.Parameter(torch.zeros(f_out, dtype=dtype)) for _ in range(2))
        self.eps = nn.Parameter(torch.zeros((), dtype=dtype))

    def forward(self, mix: Mix, h: torch.Tensor | None, step: int | None) -> torch.Tensor:
        neighbours, own = mix.mixed(h, self.weight, self.weight, step)
        hidden = (neighbours + (1 + self.eps) * own + self.bias).relu()
        return hidden @ self.second + self.second_bias


class GatLayer(nn.Module):
    """Attention over neighbours: ghosts come as they are and every rank weighs the edges into its own nodes.

    Args:
        f_in: columns in.
        f_out: columns out of a head.
        heads: independent attentions.
        joined: whether the heads' outputs stand side by side; else they are averaged.
        graph: this rank's part.
        seed, layer, rate: of the dropout of attention.
        random, dtype: of the weights.

    Source: Velickovic et al., "Graph attention networks", 2018, equations 1 to 6.
    """

    def __init__(
        self,
        f_in: int,
        f_out: int,
        heads: int,
        joined: bool,
        graph: Graph,
        seed: int,
        layer: int,
        rate: float,
        random: torch.Generator,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self._heads, self._joined, self._rate, self._num_own = heads, joined, rate, graph.num_own
        self.draw(f_in, f_out, heads, joined, random, dtype)
        row = np.repeat(np.arange(graph.num_own), np.diff(graph.local.indptr))
        col = graph.local.indices.astype(np.int64)
        self._row, self._col = as_tensor(row), as_tensor(col)
        edges = (np.repeat(graph.nodes[ends], heads) for ends in (row, col))
        self._coins = Coins(seed, *edges, np.tile(np.arange(heads), row.size), np.full(row.size * heads, layer))

    def draw(
        self, f_in: int, f_out: int, heads: int, joined: bool, random: torch.Generator, dtype: torch.dtype
    ) -> None:
        """Draw new weights."""
        self.weight = glorot((f_in, heads * f_out), random, dtype)
        self.query, self.key = (glorot((heads, f_out), random, dtype) for _ in range(2))
        self.bias = nn.Parameter(torch.zeros(heads * f_out if joined else f_out, dtype=dtype))

    def forward(self, mix: Mix, h: torch.Tensor | None, step: int | None) -> torch.Tensor:
        z = without_bfloat16(mix.transformed(h, self.weight, step))
        z = z.reshape(z.shape[0], self._heads, -1)
        asked, offered = (z[: self._num_own] * self.query).sum(-1), (z * self.key).sum(-1)
        # Not by brackets: the backward pass of those is many times slower.
        scores = asked.index_select(0, self._row) + offered.index_select(0, self._col)
        attention = self._coins(self._softmax(nn.functional.leaky_relu(scores, 0.2)), step, self._rate)
        y = z.new_zeros(self._num_own, *z.shape[1:]).index_add(
            0, self._row, z.index_select(0, self._col) * attention[..., None]
        )
        return (y.flatten(1) if self._joined else y.mean(dim=1)) + self.bias

    def _softmax(self, scores: torch.Tensor) -> torch.Tensor:
        """Return scores, (edges, heads), as shares that sum to 1 over the edges into a node."""
        rows = self._row[:, None].expand_as(scores)
        most = scores.new_zeros(self._num_own, self._heads)
        most = most.scatter_reduce(0, rows, scores.detach(), "amax", include_self=False)
        parts = (scores - most.index_select(0, self._row)).exp()
        return parts / parts.new_zeros(most.shape).index_add(0, self._row, parts).index_select(0, self._row)
