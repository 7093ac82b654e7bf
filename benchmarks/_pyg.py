"""The models of `sparsecomm gnn` by PyTorch Geometric, full-batch in one process, with the same data and settings."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch_geometric.nn import GATConv, GCNConv, SAGEConv

from sparsecomm.apps.gnn.dataset import Dataset
from sparsecomm.apps.gnn.settings import Settings

F = torch.nn.functional


class PygRun:
    """A model and its optimiser.

    Args:
        dataset: to train on.
        settings: of the run; the layers' own way of drawing weights is kept.
        split: which of the masks.
        matrix: give the graph as a sparse matrix, which GCN and SAGE multiply, not as a list of edges.
        dense: give the features as a dense matrix, which SAGE needs.
        bias: let layers of GCN have one, as they do unless told otherwise; those of Kipf and Welling have none.
    """

    def __init__(
        self, dataset: Dataset, settings: Settings, split: int = 0, *, matrix: bool, dense: bool, bias: bool = True
    ) -> None:
        torch.manual_seed(settings.seed)
        self.model = _Net(settings, dataset.features.shape[1], dataset.num_classes, bias)
        self._x = _features(dataset.features, dense=dense)
        # The graph is undirected: it is its own transpose.
        self._graph = _csr(dataset.adjacency) if matrix else _edges(dataset.adjacency)
        self._labels = torch.from_numpy(dataset.labels)
        self.masks = {name: getattr(dataset, name)[split] for name in ("train", "val", "test")}
        self._nodes = {name: torch.from_numpy(np.flatnonzero(mask)) for name, mask in self.masks.items()}
        first, *others = self.model.layers
        decay = settings.weight_decay
        groups = [{"params": list(first.parameters()), "weight_decay": decay}]
        groups += [
            {"params": list(one.parameters()), "weight_decay": 0.0 if settings.decay_first else decay} for one in others
        ]
        self._optimiser = torch.optim.Adam(groups, lr=settings.learning_rate)

    def step(self) -> None:
        """Do one training step."""
        self.model.train()
        self._optimiser.zero_grad()
        self._loss(self.model(self._x, self._graph), "train").backward()
        self._optimiser.step()

    def evaluate(self) -> tuple[float, np.ndarray]:
        """Return the validation loss and the outputs of all nodes."""
        self.model.eval()
        with torch.no_grad():
            found = self.model(self._x, self._graph)
            return float(self._loss(found, "val")), found.numpy()

    def _loss(self, found: torch.Tensor, name: str) -> torch.Tensor:
        nodes = self._nodes[name]
        return F.cross_entropy(found[nodes], self._labels[nodes])


class _Net(torch.nn.Module):
    def __init__(self, settings: Settings, num_features: int, num_classes: int, bias: bool) -> None:
        super().__init__()
        self._rate, self._activate = settings.dropout, F.elu if settings.model == "gat" else F.relu
        hidden = settings.hidden * (settings.heads if settings.model == "gat" else 1)
        widths = [num_features, *[hidden] * (settings.layers - 1)]
        last = settings.layers - 1
        self.layers = torch.nn.ModuleList(
            _layer(settings, f_in, num_classes if number == last else settings.hidden, number == last, bias)
            for number, f_in in enumerate(widths)
        )

    def forward(self, x: torch.Tensor, graph: torch.Tensor) -> torch.Tensor:
        for number, layer in enumerate(self.layers):
            x = layer(self._dropped(self._activate(x) if number else x), graph)
        return x

    def _dropped(self, x: torch.Tensor) -> torch.Tensor:
        if x.layout == torch.strided:
            return F.dropout(x, self._rate, self.training)
        values = F.dropout(x.values(), self._rate, self.training)
        return torch.sparse_csr_tensor(x.crow_indices(), x.col_indices(), values, x.shape, check_invariants=False)


def _layer(settings: Settings, f_in: int, f_out: int, last: bool, bias: bool) -> torch.nn.Module:
    if settings.model == "gcn":
        return GCNConv(f_in, f_out, cached=True, bias=bias)
    if settings.model == "sage":
        return SAGEConv(f_in, f_out)
    heads = settings.out_heads if last else settings.heads
    return GATConv(f_in, f_out, heads, concat=not last, dropout=settings.dropout)


def _features(features: csr_array[Any], *, dense: bool) -> torch.Tensor:
    return torch.from_numpy(features.toarray()) if dense else _csr(features)


def _csr(matrix: csr_array[Any]) -> torch.Tensor:
    indptr, indices = (torch.from_numpy(part.astype(np.int64)) for part in (matrix.indptr, matrix.indices))
    return torch.sparse_csr_tensor(indptr, indices, torch.from_numpy(matrix.data), matrix.shape)


def _edges(adjacency: csr_array[Any]) -> torch.Tensor:
    return torch.from_numpy(np.stack(adjacency.tocoo().coords).astype(np.int64))
