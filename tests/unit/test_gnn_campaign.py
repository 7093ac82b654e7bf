"""Accuracy of published settings over ten seeds, and equality with a dense reference however products are made."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import numpy as np
import pytest

from benchmarks._machine import machine, machine_text
from sparsecomm.apps.gnn.settings import settings_of
from tests.gnn_cases import CLOSE, EPOCHS, TOPOLOGIES, losses, plain, train
from tests.jobs import ROOT
from tests.planning_bodies import ROUTED

pytest.importorskip("torch", reason="PyTorch is not installed")

SEEDS = range(10)
# Model, data set, and the accuracy of the paper: Kipf and Welling 2017, table 2; Velickovic et al. 2018, table 2.
PUBLISHED = {
    ("gcn", "cora"): 81.5,
    ("gcn", "citeseer"): 70.3,
    ("gcn", "pubmed"): 79.0,
    ("gat", "cora"): 83.0,
}
WITHIN = 1.0
FOUND = ROOT / "benchmarks" / "results" / "gnn_accuracy.json"
TABLE = FOUND.with_suffix(".md")
COMMAND = "python -m pytest -m campaign --timeout 3600 tests/unit/test_gnn_campaign.py"


@pytest.mark.campaign
@pytest.mark.parametrize(("model", "name"), PUBLISHED)
def test_accuracy(model: str, name: str, data_dir: Any) -> None:
    path = str((data_dir / "gnn" / "planetoid").path / name)
    reports = [train(path, settings_of(model, seed=seed), 2, "hierarchical") for seed in SEEDS]
    found = {
        "test": [100 * report["best"]["test"] for report in reports],
        "epochs": [len(report["epochs"]) for report in reports],
        "seconds": float(np.median([epoch["seconds"] for report in reports for epoch in report["epochs"]])),
        "machine": machine() | {"command": COMMAND},
    }
    _write(f"{model} {name}", found)
    assert abs(np.mean(found["test"]) - PUBLISHED[model, name]) <= WITHIN, found


@pytest.mark.campaign
@pytest.mark.parametrize("ranks", TOPOLOGIES)
@pytest.mark.parametrize("dtype", CLOSE)
def test_cora_equals_dense_reference(dtype: str, ranks: int, data_dir: Any) -> None:
    from tests.gnn_reference import reference

    path = str((data_dir / "gnn" / "planetoid").path / "cora")
    settings = settings_of("gcn", **plain(dtype))
    for strategy, method in product(ROUTED, ("block", "metis")):
        found = losses(train(path, settings, ranks, strategy, method))
        assert len(found) == EPOCHS
        np.testing.assert_allclose(found, reference(path, settings), rtol=CLOSE[dtype], err_msg=f"{strategy} {method}")


def _write(case: str, found: dict[str, Any]) -> None:
    every = json.loads(FOUND.read_text()) if FOUND.exists() else {}
    every[case] = found
    FOUND.write_text(json.dumps(every, indent=1) + "\n")
    lines = [
        "# Accuracy of published settings",
        "",
        "Public splits of Planetoid, 2 ranks (threads), the settings of the papers. `mean` is that of the accuracy, in",
        "percent, of the test nodes after the epoch of the lowest validation loss, over the seeds 0 to 9.",
        "",
        "```text",
        machine_text(found["machine"]),
        "```",
        "",
        "| model | data | published | mean | deviation | lowest | highest | epochs | step, ms |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *(_row(*key, every[" ".join(key)]) for key in PUBLISHED if " ".join(key) in every),
        "",
    ]
    TABLE.write_text("\n".join(lines))


def _row(model: str, name: str, found: dict[str, Any]) -> str:
    test, published = np.array(found["test"]), PUBLISHED[model, name]
    return (
        f"| {model} | {name} | {published} ± {WITHIN} | {test.mean():.2f} | {test.std():.2f} | {test.min():.1f} "
        f"| {test.max():.1f} | {np.mean(found['epochs']):.0f} | {1e3 * found['seconds']:.1f} |"
    )
