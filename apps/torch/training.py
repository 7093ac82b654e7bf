"""Full-batch training of a graph network over the ranks of a job."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sparsecomm.apps.gnn.info import Nodes
from sparsecomm.apps.gnn.score import Score
from sparsecomm.apps.gnn.settings import Settings
from sparsecomm.apps.torch.arrays import as_tensor
from sparsecomm.apps.torch.gradients import sum_gradients
from sparsecomm.apps.torch.graph import Graph
from sparsecomm.apps.torch.lion import Lion, SignVotes
from sparsecomm.apps.torch.models import GraphNet
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.typing import IntGlobal

State = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Epoch:
    """One epoch, the same on all ranks but for what moved.

    Args:
        number: counted from 1.
        loss: mean cross-entropy of the training nodes before this epoch's update, with dropout.
        val_loss: mean cross-entropy of the validation nodes after it, without dropout.
        scores: of `train`, `val` and `test` nodes after it: accuracy, or ROC AUC where there are two classes.
        seconds: that the training step took on the slowest rank.
        rows: (num_levels,) int64, sent by this rank in the training step.
        num_bytes: likewise.
    """

    number: int
    loss: float
    val_loss: float
    scores: dict[str, float]
    seconds: float
    rows: IntGlobal
    num_bytes: IntGlobal


class Trainer:
    """A model, its optimiser, and where they stand.

    Args:
        graph: this rank's part.
        model: over it.
        nodes: this rank's.
        settings: of the run.
        transport: over the ranks of the job.
        score: how to judge.

    Attributes:
        epoch: number of the last epoch that was trained.
        best_epoch, best_loss, best_scores: of the lowest validation loss so far.

    Note: Collective over comm.
    """

    def __init__(
        self, graph: Graph, model: GraphNet, nodes: Nodes, settings: Settings, transport: Transport, score: Score
    ) -> None:
        self._graph, self._model, self._nodes, self._settings = graph, model, nodes, settings
        self._transport, self._score = transport, score
        self._labels = as_tensor(nodes.labels)
        masks = (nodes.train, nodes.val)
        self._train, self._val = (as_tensor(np.flatnonzero(mask)) for mask in masks)
        counts = np.array([mask.sum() for mask in masks], dtype=np.int64)
        self._num_train, self._num_val = np.maximum(transport.reduce(counts, "sum"), 1).tolist()
        size = sum(weight.numel() for weight in model.parameters())
        self._votes = SignVotes(size, transport) if settings.optimiser == "sign-lion" else None
        self._optimiser = _optimiser(model, settings, self._votes)
        self.epoch = self.best_epoch = 0
        self.best_loss, self.best_scores = np.inf, dict[str, float]()

    @property
    def done(self) -> bool:
        """Whether the last epoch is over or patience has run out."""
        patience = self._settings.patience
        waited = self.epoch - self.best_epoch
        return self.epoch >= self._settings.epochs or (patience > 0 and waited >= patience)

    def run(self) -> Iterator[Epoch]:
        """Train until `done`, one epoch at a time.

        Note: Collective over comm.
        """
        while not self.done:
            yield self._train_epoch()

    def _train_epoch(self) -> Epoch:
        before, begin = self._graph.executed, time.perf_counter()
        loss = self.step()
        seconds = np.array([time.perf_counter() - begin])
        moved = self._graph.executed - before
        self.epoch += 1
        val_loss, scores = self.evaluate()
        if val_loss < self.best_loss:
            self.best_epoch, self.best_loss, self.best_scores = self.epoch, val_loss, scores
        slowest = float(self._transport.reduce(seconds, "max")[0])
        return Epoch(self.epoch, loss, val_loss, scores, slowest, moved.rows_sent, moved.bytes_sent)

    def step(self) -> float:
        """Do one training step and return its loss.

        Note: Collective over comm.
        """
        self._optimiser.zero_grad()
        mine = self._cross_entropy(self._model(self.epoch + 1), self._train) / self._num_train
        mine.backward()
        if self._votes is None:  # ranks that vote keep their own gradients
            sum_gradients(self._model.parameters(), self._transport)
        self._optimiser.step()
        return self._sum(mine)

    def evaluate(self) -> tuple[float, dict[str, float]]:
        """Return the validation loss and the scores, without dropout.

        Note: Collective over comm.
        """
        with torch.no_grad():
            found = self._model(None)
            loss = self._sum(self._cross_entropy(found, self._val) / self._num_val)
        masks = {name: getattr(self._nodes, name) for name in ("train", "val", "test")}
        return loss, self._score(found.numpy(), self._nodes.labels, masks, self._transport)

    def close(self) -> None:
        """Free what was made.

        Note: Collective over comm.
        """
        self._model.close()
        if self._votes is not None:
            self._votes.close()

    def state(self) -> State:
        """Return everything that a later run needs to go on as if nothing had happened."""
        state: State = {f"weight.{name}": value.detach().numpy() for name, value in self._model.named_parameters()}
        for name, parameter in self._model.named_parameters():
            for key, value in self._optimiser.state.get(parameter, {}).items():
                state[f"adam.{key}.{name}"] = value.numpy()
        state["epoch"], state["best_epoch"] = np.array(self.epoch), np.array(self.best_epoch)
        state["best_loss"] = np.array(self.best_loss)
        return state | {f"best.{name}": np.array(value) for name, value in self.best_scores.items()}

    def restore(self, state: State) -> None:
        """Go on from what `state` returned on any rank."""
        with torch.no_grad():
            for name, parameter in self._model.named_parameters():
                parameter.copy_(as_tensor(state[f"weight.{name}"]))
                keys = [key for key in ("step", "exp_avg", "exp_avg_sq") if f"adam.{key}.{name}" in state]
                self._optimiser.state[parameter] = {key: as_tensor(state[f"adam.{key}.{name}"].copy()) for key in keys}
        self.epoch, self.best_epoch = int(state["epoch"]), int(state["best_epoch"])
        self.best_loss = float(state["best_loss"])
        self.best_scores = {name[5:]: float(value) for name, value in state.items() if name.startswith("best.")}

    def _cross_entropy(self, scores: torch.Tensor, nodes: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(scores[nodes], self._labels[nodes], reduction="sum")

    def _sum(self, mine: torch.Tensor) -> float:
        return float(self._transport.reduce(np.array([mine.item()]), "sum")[0])


def _optimiser(model: GraphNet, settings: Settings, votes: SignVotes | None) -> torch.optim.Optimizer:
    groups, rate = _groups(model, settings), settings.learning_rate
    if settings.optimiser == "adam":
        return torch.optim.Adam(groups, lr=rate, foreach=False)
    return Lion(groups, lr=rate, signs=votes or torch.sign)


def _groups(model: GraphNet, settings: Settings) -> list[dict[str, Any]]:
    """Return the parameters by their weight decay."""
    first, others = list(model.layers[0].parameters()), [p for one in model.layers[1:] for p in one.parameters()]
    decay = settings.weight_decay
    groups = [{"params": first, "weight_decay": decay}]
    if others:
        groups.append({"params": others, "weight_decay": 0.0 if settings.decay_first else decay})
    return groups
