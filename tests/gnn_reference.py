"""Graph networks trained by dense PyTorch in one process: the oracle of those over ranks. No dropout."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from sparsecomm.apps.gnn.dataset import Dataset
from sparsecomm.apps.gnn.read import read_dataset
from sparsecomm.apps.gnn.settings import Settings
from sparsecomm.apps.torch.layers import GatLayer, GcnLayer, GinLayer, SageLayer

F = torch.nn.functional


@cache
def reference(path: str, settings: Settings) -> np.ndarray:
    """Return (epochs, 2): training loss and validation loss of a data set."""
    return np.array(dense_losses(read_dataset(path), settings, settings.epochs))


def dense_losses(dataset: Dataset, settings: Settings, num_epochs: int) -> list[tuple[float, float]]:
    """Return the training loss before and the validation loss after every epoch."""
    dtype = getattr(torch, settings.dtype)
    adjacency = torch.from_numpy(dataset.adjacency.toarray()).to(dtype)
    if settings.model == "gcn":
        adjacency = _normalised(adjacency)
    x = torch.from_numpy(dataset.features.toarray()).to(dtype)
    labels = torch.from_numpy(dataset.labels)
    train, val = (torch.from_numpy(mask[0]) for mask in (dataset.train, dataset.val))
    layers = weights(settings, x.shape[1], dataset.num_classes)
    decayed = [settings.weight_decay, 0.0 if settings.decay_first else settings.weight_decay]
    groups = [
        {"params": list(layer.values()), "weight_decay": decayed[min(number, 1)]} for number, layer in enumerate(layers)
    ]
    optimiser = torch.optim.Adam(groups, lr=settings.learning_rate)
    forward = _FORWARD[settings.model]
    activate = F.elu if settings.model == "gat" else torch.relu

    def outputs() -> torch.Tensor:
        h = x
        for number, layer in enumerate(layers):
            h = forward(adjacency, h if number == 0 else activate(h), layer, number == len(layers) - 1)
        return h

    losses = []
    for _ in range(num_epochs):
        optimiser.zero_grad()
        loss = F.cross_entropy(outputs()[train], labels[train])
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            losses.append((loss.item(), F.cross_entropy(outputs()[val], labels[val]).item()))
    return losses


def weights(settings: Settings, num_features: int, num_classes: int) -> list[dict[str, torch.Tensor]]:
    """Draw the weights that a model over ranks begins with."""
    random, dtype = torch.Generator().manual_seed(settings.seed), getattr(torch, settings.dtype)
    widths = settings.widths(num_features, num_classes)
    made = []
    for number in range(settings.layers):
        if settings.model == "gat":
            heads = settings.out_heads if number == settings.layers - 1 else settings.heads
            f_out = widths[number + 1] // heads
            layer = GatLayer.__new__(GatLayer)
            torch.nn.Module.__init__(layer)
            layer.draw(widths[number], f_out, heads, number < settings.layers - 1, random, dtype)
        else:
            layer = _LAYERS[settings.model](widths[number], widths[number + 1], random, dtype)
        made.append({name: value.detach().clone().requires_grad_() for name, value in layer.named_parameters()})
    return made


Weights = dict[str, torch.Tensor]


def _normalised(adjacency: torch.Tensor) -> torch.Tensor:
    loops = adjacency + torch.eye(len(adjacency), dtype=adjacency.dtype)
    scale = loops.sum(dim=1).rsqrt()
    return scale[:, None] * loops * scale


def _gcn(normalised: torch.Tensor, h: torch.Tensor, layer: Weights, last: bool) -> torch.Tensor:
    return normalised @ (h @ layer["weight"])


def _sage(adjacency: torch.Tensor, h: torch.Tensor, layer: Weights, last: bool) -> torch.Tensor:
    mean = adjacency @ h / adjacency.sum(dim=1, keepdim=True).clamp(min=1)
    return mean @ layer["weight"] + h @ layer["own_weight"] + layer["bias"]


def _gin(adjacency: torch.Tensor, h: torch.Tensor, layer: Weights, last: bool) -> torch.Tensor:
    mixed = adjacency @ h + (1 + layer["eps"]) * h
    return (mixed @ layer["weight"] + layer["bias"]).relu() @ layer["second"] + layer["second_bias"]


def _gat(adjacency: torch.Tensor, h: torch.Tensor, layer: Weights, last: bool) -> torch.Tensor:
    heads = len(layer["query"])
    z = (h @ layer["weight"]).reshape(len(h), heads, -1)
    scores = F.leaky_relu((z * layer["query"]).sum(-1)[:, None] + (z * layer["key"]).sum(-1)[None], 0.2)
    edges = (adjacency + torch.eye(len(h), dtype=h.dtype))[..., None] > 0
    attention = scores.masked_fill(~edges, -np.inf).softmax(dim=1)
    y = torch.einsum("ijh,jhf->ihf", attention, z)
    return (y.mean(dim=1) if last else y.flatten(1)) + layer["bias"]


_LAYERS = {"gcn": GcnLayer, "sage": SageLayer, "gin": GinLayer}
_FORWARD = {"gcn": _gcn, "sage": _sage, "gin": _gin, "gat": _gat}
