"""How good predictions are, over the nodes of all ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from sparsecomm.collectives.transport.base import Transport
from sparsecomm.table import Table
from sparsecomm.typing import Bools, IntGlobal

Outputs = npt.NDArray[Any]
Score = Callable[[Outputs, IntGlobal, Mapping[str, Bools], Transport], dict[str, float]]
"""Takes this rank's outputs, labels and masks, and returns a score for each mask, on all ranks."""


def accuracy(outputs: Outputs, labels: IntGlobal, masks: Mapping[str, Bools], transport: Transport) -> dict[str, float]:
    """Return the share of nodes whose largest output is that of their class.

    Args:
        outputs: (own nodes, num_classes).
        labels: (own nodes,).
        masks: (own nodes,) each.
        transport: over the ranks.

    Note: Collective over comm.
    """
    right = outputs.argmax(axis=1) == labels
    counts = np.array([[(right & mask).sum(), mask.sum()] for mask in masks.values()], dtype=np.int64)
    totals = transport.reduce(counts, "sum").reshape(-1, 2)
    return {name: float(hits / max(total, 1)) for name, (hits, total) in zip(masks, totals, strict=True)}


def roc_auc(outputs: Outputs, labels: IntGlobal, masks: Mapping[str, Bools], transport: Transport) -> dict[str, float]:
    """Return the chance that a node of class 1 gets a higher output than one of class 0, ties counted as half.

    Args:
        outputs: (own nodes, 2), judged by the second column minus the first.
        labels: (own nodes,), 0 or 1.
        masks: (own nodes,) each.
        transport: over the ranks.

    Returns:
        A score for each mask; 0.5 where one class has no node.

    Note: Collective over comm.
    """
    columns = {"output": (outputs[:, 1] - outputs[:, 0]).astype(np.float64), "label": labels}
    table = Table(np.full(labels.size, transport.rank, dtype=np.int32), {**columns, **masks})
    whole = transport.route(table, np.zeros(labels.size, dtype=np.int32))
    mine = {name: _auc(whole["output"][whole[name]], whole["label"][whole[name]]) for name in masks}
    return transport.bcast(mine)


def _auc(outputs: npt.NDArray[np.float64], labels: IntGlobal) -> float:
    positive = labels == 1
    pairs = int(positive.sum()) * int((~positive).sum())
    if not pairs:
        return 0.5
    hits = rankdata(outputs)[positive].sum() - positive.sum() * (positive.sum() + 1) / 2
    return float(hits / pairs)
