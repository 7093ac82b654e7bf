"""Graph neural networks for the classes of nodes, of any depth."""

from __future__ import annotations

from typing import Any

import torch
from scipy.sparse import csr_array
from torch import nn
from torch.utils.checkpoint import checkpoint

from sparsecomm.apps.gnn.orders import Order, choose_orders, moved_widths, pairs
from sparsecomm.apps.gnn.settings import Settings
from sparsecomm.apps.torch.graph import Graph
from sparsecomm.apps.torch.layers import GatLayer, GcnLayer, GinLayer, SageLayer
from sparsecomm.apps.torch.mixing import HiddenMix, InputMix
from sparsecomm.apps.torch.neighbours import neighbours_of

_PLAIN = {"gcn": GcnLayer, "sage": SageLayer, "gin": GinLayer}


class GraphNet(nn.Module):
    """Layers of one kind; weights are drawn from the seed and the same on all ranks.

    Args:
        graph: this rank's part.
        features: (own nodes, f) in new numbering, of the dtype of the settings.
        num_classes: columns of the output.
        settings: of the model.

    Attributes:
        orders: of every layer.
        moved: columns of every layer that travel in a training step.

    Note: Collective over comm.
    """

    def __init__(self, graph: Graph, features: csr_array[Any], num_classes: int, settings: Settings) -> None:
        super().__init__()
        widths = settings.widths(features.shape[1], num_classes)
        self.orders = _orders(widths, settings)
        self.moved = moved_widths(widths, self.orders)
        random = torch.Generator().manual_seed(settings.seed)
        made = [_layer(graph, settings, widths, number, random) for number in range(settings.layers)]
        self.layers = nn.ModuleList(made)
        seed, rate = settings.seed, settings.dropout
        self._neighbours = [neighbours_of(graph, settings, layer) for layer in range(settings.layers)]
        first, *others = zip(self.orders, self._neighbours, strict=True)
        hidden = [HiddenMix(graph, *one, seed, layer, rate) for layer, one in enumerate(others, start=1)]
        self._mixes: list[InputMix | HiddenMix] = [InputMix(graph, features, *first, seed, rate), *hidden]
        self._dtype, self._amp = getattr(torch, settings.dtype), settings.amp
        self._recompute = settings.recompute
        self._activate = nn.functional.elu if settings.model == "gat" else torch.relu

    def forward(self, step: int | None) -> torch.Tensor:
        """Return the scores of the own nodes, (own nodes, num_classes).

        Args:
            step: number of a training step, which decides what is dropped; None drops nothing.

        Note: Collective over comm.
        """
        h = None
        with torch.autocast("cpu", torch.bfloat16, enabled=self._amp):
            for layer, mix in zip(self.layers, self._mixes, strict=True):
                h = self._run(layer, mix, h, step)
        assert h is not None  # there is a layer
        return h.to(self._dtype)

    def close(self) -> None:
        """End what is under way.

        Note: Collective over comm.
        """
        for one in self._neighbours:
            one.close()

    def _run(
        self, layer: nn.Module, mix: InputMix | HiddenMix, h: torch.Tensor | None, step: int | None
    ) -> torch.Tensor:
        def act(h: torch.Tensor | None) -> torch.Tensor:
            return layer(mix, h if h is None else self._activate(h), step)

        if not (self._recompute and h is not None and torch.is_grad_enabled()):
            return act(h)
        # What is dropped depends on the step alone: no state of a generator is needed to do it again.
        return checkpoint(act, h, use_reentrant=False, preserve_rng_state=False)


def _orders(widths: list[int], settings: Settings) -> list[Order]:
    orders = choose_orders(widths, settings.epochs, cache=settings.cache)
    if settings.model == "gat":  # attention needs X W of neighbours, whatever its width
        return ["transform" if order == "aggregate" else order for order in orders]
    return orders


def _layer(graph: Graph, settings: Settings, widths: list[int], number: int, random: torch.Generator) -> nn.Module:
    dtype = getattr(torch, settings.dtype)
    f_in, f_out = pairs(widths)[number]
    if settings.model != "gat":
        return _PLAIN[settings.model](f_in, f_out, random, dtype)
    last = number == settings.layers - 1
    heads = settings.out_heads if last else settings.heads
    return GatLayer(
        f_in, f_out // heads, heads, not last, graph, settings.seed, number, settings.dropout, random, dtype
    )
