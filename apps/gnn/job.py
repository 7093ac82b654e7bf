"""Application `gnn`: a graph network trained on the nodes of all ranks, counted and reported."""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsecomm.apps.gnn.checkpoint import Header, load_checkpoint, partition_id, save_checkpoint
from sparsecomm.apps.gnn.orders import pairs
from sparsecomm.apps.gnn.score import accuracy, roc_auc
from sparsecomm.apps.gnn.settings import Settings
from sparsecomm.apps.gnn.share import GraphShare, bring_dataset
from sparsecomm.apps.job import on_all, on_root
from sparsecomm.apps.source import Say, quiet
from sparsecomm.apps.summary import Json, Loads, topology_json
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.errors import InputError
from sparsecomm.topology import Topology
from sparsecomm.typing import IntGlobal

if TYPE_CHECKING:
    from sparsecomm.apps.torch.graph import Graph
    from sparsecomm.apps.torch.models import GraphNet
    from sparsecomm.apps.torch.training import Epoch, Trainer

OnEpoch = Callable[["Epoch", IntGlobal], None]
_GATHERS = ("direct", "hierarchical", "striped", "allgather")


def no_epoch(epoch: Epoch, num_bytes: IntGlobal) -> None:
    """Say nothing of an epoch."""


@dataclass(frozen=True, slots=True)
class GnnOptions:
    """What to train and where; see `sparsecomm gnn --help`."""

    dataset: str
    settings: Settings
    method: str = "block"
    strategy: str = "auto"
    split: int = 0
    checkpoint: Path | None = None
    checkpoint_every: int = 10
    resume: bool = False


def run_gnn(
    options: GnnOptions,
    topology: Topology,
    transport: Transport,
    say: Say = quiet,
    on_epoch: OnEpoch = no_epoch,
) -> Json:
    """Bring a data set into the job, train, and return the report on every rank.

    Args:
        options: what to train.
        topology: of the job.
        transport: over its ranks.
        say: told of every step that begins.
        on_epoch: told of every epoch and of the bytes that all ranks sent in it, by level.

    Raises:
        InputError: on every rank, for bad input.

    Note: Collective over comm.
    """
    on_all(transport, lambda: check_options(options))
    from sparsecomm.apps.torch.graph import Graph
    from sparsecomm.apps.torch.models import GraphNet

    begun_with = _peak_memory(transport)
    settings = options.settings
    share = bring_dataset(
        options.dataset, settings, topology, transport, method=options.method, split=options.split, say=say
    )
    say("planning")
    strategy = "hierarchical" if settings.fetches_ghosts and options.strategy == "auto" else options.strategy
    width = min(settings.widths(share.info.features, share.info.classes)[-2:])
    wire = settings.wire or None
    graph = Graph(share.rows, share.layouts, topology, transport, strategy=strategy, width=width, wire_dtype=wire)
    model = GraphNet(graph, share.features, share.info.classes, settings)
    begun = _sum(graph.executed.bytes_sent, transport)
    trainer = _trainer(options, share, graph, model, transport)
    say("training")
    lines = [_line(epoch, topology, transport, on_epoch) for epoch in _epochs(options, share, trainer, transport)]
    report = _report(options, share, graph, model, topology, transport)
    trainer.close()
    graph.close()
    memory = {"memory_before_bytes": begun_with, "peak_memory_bytes": _peak_memory(transport)}
    result = {**memory, "best_epoch": trainer.best_epoch, "best": trainer.best_scores, "epochs": lines}
    return {"schema": "sparsecomm.gnn/1", **report, "input_bytes": _per_level(begun, topology), **result}


def check_options(options: GnnOptions) -> None:
    """Refuse what can be refused before anything is read.

    Raises:
        InputError: with what was given and what can be.
    """
    from importlib.util import find_spec

    from sparsecomm.collectives.strategy import get_strategy

    if find_spec("torch") is None:
        raise InputError("gnn needs PyTorch; install it with: pip install 'sparsecomm[torch]'")
    if options.strategy != "auto":
        get_strategy(options.strategy)
        if options.settings.fetches_ghosts and options.strategy not in _GATHERS:
            why = "gat weighs" if options.settings.model == "gat" else "stale or sampled ghosts are"
            raise InputError(
                f"{why} whole rows of neighbours, which strategy {options.strategy} does not bring; "
                f"give auto or one of {', '.join(_GATHERS)}"
            )
    if options.settings.optimiser == "sign-lion" and options.checkpoint is not None:
        raise InputError(
            "with sign-lion ranks have momenta of their own, which a checkpoint does not hold; give lion or no file"
        )
    if options.settings.stale and options.checkpoint is not None:
        raise InputError("with stale ghosts rows are under way, which a checkpoint does not hold; give no file")
    if options.checkpoint_every < 1:
        raise InputError(f"a checkpoint every {options.checkpoint_every} epochs cannot be; give at least 1")
    if options.checkpoint is not None and not options.checkpoint.parent.is_dir():
        raise InputError(f"{options.checkpoint} cannot be written: there is no folder {options.checkpoint.parent}")
    if options.resume and options.checkpoint is None:
        raise InputError("--resume needs the file to go on from; give it with --checkpoint")


def _trainer(options: GnnOptions, share: GraphShare, graph: Graph, model: GraphNet, transport: Transport) -> Trainer:
    from sparsecomm.apps.torch.training import Trainer

    score = roc_auc if share.info.classes == 2 else accuracy
    trainer = Trainer(graph, model, share.nodes, options.settings, transport, score)
    path = options.checkpoint
    if options.resume and path is not None:
        state = on_root(transport, lambda: load_checkpoint(path, _header(options, share)))
        trainer.restore(transport.bcast(state or {}))
    return trainer


def _epochs(options: GnnOptions, share: GraphShare, trainer: Trainer, transport: Transport) -> Any:
    """Yield every epoch, and write a checkpoint after some and after the last."""
    path = options.checkpoint
    for epoch in trainer.run():
        if path is not None and (trainer.done or epoch.number % options.checkpoint_every == 0):
            on_root(transport, lambda: save_checkpoint(path, trainer.state(), _header(options, share)))
        yield epoch


def _header(options: GnnOptions, share: GraphShare) -> Header:
    """Return what two runs must have in common for one to go on where the other stopped."""
    free = replace(options.settings, epochs=1, patience=0)
    return {
        "dataset": share.info.name,
        "graph": share.info.fingerprint,
        "split": options.split,
        "ranks": share.layouts.rows.num_ranks,
        "partition": partition_id(share.layouts.rows),
        "settings": free.to_json(),
    }


def _line(epoch: Epoch, topology: Topology, transport: Transport, on_epoch: OnEpoch) -> Json:
    rows, num_bytes = _sum(epoch.rows, transport), _sum(epoch.num_bytes, transport)
    on_epoch(epoch, num_bytes)
    return {
        "epoch": epoch.number,
        "loss": epoch.loss,
        "val_loss": epoch.val_loss,
        **epoch.scores,
        "seconds": epoch.seconds,
        "rows": _per_level(rows, topology),
        "bytes": _per_level(num_bytes, topology),
    }


def _report(
    options: GnnOptions, share: GraphShare, graph: Graph, model: GraphNet, topology: Topology, transport: Transport
) -> Json:
    counts = (share.rows.shape[0], share.rows.nnz)
    loads = Loads(*(transport.collect(np.array([count], dtype=np.int64)) for count in counts))
    return {
        "dataset": asdict(share.info) | {"split": options.split},
        "topology": topology_json(topology),
        "ranks": transport.num_ranks,
        "partition": {"method": share.method, "imbalance": loads.imbalance(topology)},
        "strategy": graph.matrix.product.strategy,
        "settings": options.settings.to_json(),
        "score": "roc_auc" if share.info.classes == 2 else "accuracy",
        "orders": model.orders,
        "columns_moved": model.moved,
        "bytes_saved": _saved(options, share, graph, model, topology, transport),
    }


def _peak_memory(transport: Transport) -> list[int]:
    """Return the largest memory that every rank's process has had so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return [int(one) for one in transport.collect(np.array([peak], dtype=np.int64))]


def _saved(
    options: GnnOptions, share: GraphShare, graph: Graph, model: GraphNet, topology: Topology, transport: Transport
) -> Json:
    """Return what every training step sends less than if each layer computed (A X) W, by level."""
    widths = options.settings.widths(share.info.features, share.info.classes)
    plain = sum(f_in if layer == 0 else 2 * f_in for layer, (f_in, _) in enumerate(pairs(widths)))
    rows = _sum(graph.pass_rows, transport)
    itemsize = np.dtype(options.settings.dtype).itemsize
    return _per_level((plain - sum(model.moved)) * rows * itemsize, topology)


def _sum(values: IntGlobal, transport: Transport) -> IntGlobal:
    return np.asarray(transport.reduce(np.asarray(values, dtype=np.int64), "sum"))


def _per_level(values: IntGlobal, topology: Topology) -> Json:
    return {name: int(value) for name, value in zip(topology.level_names, values, strict=True)}
