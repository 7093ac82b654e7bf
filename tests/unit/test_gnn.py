"""Graph networks over threads, held against dense ones in one process."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparsecomm.apps.gnn.orders import choose_orders, moved_widths
from sparsecomm.apps.gnn.settings import MODELS, settings_of
from sparsecomm.errors import InputError
from tests.gnn_cases import CLOSE, EPOCHS, FEATURES, TOPOLOGIES, losses, plain, train, write_graph
from tests.planning_bodies import ROUTED

pytest.importorskip("torch", reason="PyTorch is not installed")

from tests.gnn_reference import reference


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_graph(tmp_path_factory.mktemp("graph") / "small.npz")


@pytest.mark.parametrize("ranks", TOPOLOGIES)
def test_gcn_equals_dense_reference(ranks: int, graph: str) -> None:
    for number, strategy in enumerate(ROUTED[ranks % 3 :: 3]):  # every one at some number of ranks
        dtype, method = ("float64", "float32")[number % 2], ("block", "random")[number // 2 % 2]
        settings = settings_of("gcn", **plain(dtype))
        found = losses(train(graph, settings, ranks, strategy, method))
        assert len(found) == EPOCHS
        np.testing.assert_allclose(found, reference(graph, settings), rtol=CLOSE[dtype], err_msg=strategy)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("ranks", [1, 3])
def test_models_equal_dense_references(model: str, ranks: int, graph: str) -> None:
    for layers, cache_input in ((1, True), (3, False), (2, True)):
        settings = settings_of(model, **{**plain(), "epochs": 12, "layers": layers, "cache": cache_input, "hidden": 8})
        found = losses(train(graph, settings, ranks, method="random"))
        np.testing.assert_allclose(found, reference(graph, settings), rtol=1e-10, err_msg=f"{layers} layers")


@pytest.mark.parametrize("model", ["gcn", "gin"])
def test_dense_features(model: str, tmp_path: Path) -> None:
    """Features that are mostly not zero are multiplied as dense ones, and dropped alike."""
    path = write_graph(tmp_path / "dense.npz", density=0.6)
    for cache_input in (True, False):
        settings = settings_of(model, **{**plain(), "epochs": 8, "cache": cache_input, "hidden": 8})
        found = losses(train(path, settings, 3, method="random"))
        np.testing.assert_allclose(found, reference(path, settings), rtol=1e-10)
        alone, spread = (
            train(path, replace(settings, dropout=0.4), ranks, method=method)
            for ranks, method in ((1, "block"), (3, "random"))
        )
        np.testing.assert_allclose(losses(spread), losses(alone), rtol=1e-10)


@pytest.mark.parametrize(("model", "more"), [("sage", 1), ("gat", 1.5)])
def test_recomputed_layers(model: str, more: float, graph: str) -> None:
    """The same bits; only where gradients need rows of ghosts do these come once more."""
    settings = settings_of(model, epochs=4, layers=3, hidden=8, heads=2)
    kept, again = (train(graph, replace(settings, recompute=flag), 3) for flag in (False, True))
    np.testing.assert_array_equal(losses(again), losses(kept))
    assert sum(again["epochs"][-1]["rows"].values()) == more * sum(kept["epochs"][-1]["rows"].values())


def test_rounded_rows(graph: str) -> None:
    """Rows that are rounded on their way take fewer bytes; losses stay near, and are those of one rank without them."""
    settings = settings_of("gcn", **{**plain("float32"), "epochs": 20})
    whole, alone = train(graph, settings, 3, "direct"), train(graph, replace(settings, wire="int8"), 1)
    np.testing.assert_allclose(losses(alone), losses(whole), rtol=1e-5)
    for wire, itemsize in (("bfloat16", 2), ("float16", 2), ("int8", 1 + 4 / 3)):
        found = train(graph, replace(settings, wire=wire), 3, "direct")
        np.testing.assert_allclose(losses(found), losses(whole), rtol=0.02)
        sent, in_full = (sum(report["epochs"][-1]["bytes"].values()) for report in (found, whole))
        assert sent == round(in_full * itemsize / 4)


def test_lion(graph: str) -> None:
    """Lion learns, on any number of ranks alike; where they vote on signs it learns too."""
    settings = settings_of("gcn", epochs=30, optimiser="lion", learning_rate=0.01, dtype="float64", dropout=0.0)
    alone, spread = (losses(train(graph, settings, ranks)) for ranks in (1, 3))
    np.testing.assert_allclose(spread, alone, rtol=1e-6)
    voted = losses(train(graph, replace(settings, optimiser="sign-lion"), 3))
    assert voted[-1, 0] < 0.9 * voted[0, 0]


@pytest.mark.parametrize("model", ["gcn", "gat"])
def test_dropout_knows_nodes_not_ranks(model: str, graph: str) -> None:
    settings = settings_of(model, dtype="float64", epochs=10, dropout=0.5)
    alone = losses(train(graph, settings, 1))
    for cache_input in (True, False):
        spread = train(graph, replace(settings, cache=cache_input), 3, method="random")
        np.testing.assert_allclose(losses(spread), alone, rtol=1e-10)
    assert abs(alone - losses(train(graph, replace(settings, seed=1), 1))).max() > 1e-3


@pytest.mark.parametrize("model", MODELS)
def test_layers_move_what_their_order_says(model: str, graph: str) -> None:
    plans = {}
    for cache_input in (True, False):
        settings = settings_of(model, epochs=3, cache=cache_input, hidden=8, heads=2, dropout=0.0)
        report = plans[cache_input] = train(graph, settings, 4, "hierarchical")
        widths = settings.widths(FEATURES, 3)
        assert report["columns_moved"] == moved_widths(widths, report["orders"])
        per_pass = sum(report["epochs"][1]["rows"].values())
        passes = sum(
            2 - (layer == 0 and order == "aggregate")
            for layer, order in enumerate(report["orders"])
            if order != "cached"
        )
        rows = per_pass // passes
        assert rows * passes == per_pass
        for epoch in report["epochs"]:
            assert sum(epoch["bytes"].values()) == rows * 4 * sum(report["columns_moved"])
    cached, plain = plans[True], plans[False]
    assert cached["orders"][0] == "cached"
    assert cached["columns_moved"][0] == 0
    np.testing.assert_allclose(losses(cached), losses(plain), rtol=1e-5)
    assert all(cached["bytes_saved"][level] > plain["bytes_saved"][level] for level in plain["bytes_saved"])


def test_orders_of_cora() -> None:
    assert choose_orders([1433, 16, 7], 1) == ["transform", "transform"]
    assert moved_widths([1433, 16, 7], choose_orders([1433, 16, 7], 1)) == [32, 14]
    assert choose_orders([1433, 16, 7], 200) == ["cached", "transform"]
    assert moved_widths([1433, 16, 7], ["cached", "transform"]) == [0, 14]
    assert choose_orders([8, 64, 128, 3], 1) == ["cached", "aggregate", "transform"]
    assert moved_widths([8, 64, 128, 3], ["aggregate", "aggregate", "transform"]) == [8, 128, 6]
    with pytest.raises(InputError, match="at least one column"):
        choose_orders([5], 1)


@pytest.mark.parametrize("model", ["gcn", "gat"])
def test_resumed_run_ends_alike(model: str, graph: str, tmp_path: Path) -> None:
    settings = settings_of(model, epochs=12, patience=0)
    whole = train(graph, settings, 3)
    part = tmp_path / "part.npz"
    train(graph, replace(settings, epochs=7), 3, checkpoint=part, checkpoint_every=5)
    rest = train(graph, settings, 3, checkpoint=part, resume=True)
    assert rest["epochs"][0]["epoch"] == 8
    np.testing.assert_array_equal(losses(rest), losses(whole)[7:])
    assert (rest["best_epoch"], rest["best"]) == (whole["best_epoch"], whole["best"])
    with pytest.raises(InputError, match=r"checkpoint .* was made with partition .* run with the same partition"):
        train(graph, settings, 3, method="random", checkpoint=part, resume=True)
    with pytest.raises(InputError, match="was made with ranks 3, not 2"):
        train(graph, settings, 2, checkpoint=part, resume=True)
    with pytest.raises(InputError, match="was made with settings"):
        train(graph, replace(settings, hidden=5), 3, checkpoint=part, resume=True)
    part.write_bytes(part.read_bytes()[:1000])
    with pytest.raises(InputError, match="not a sound checkpoint"):
        train(graph, settings, 3, checkpoint=part, resume=True)


def test_patience_ends_training(graph: str) -> None:
    settings = settings_of("gcn", **{**plain(), "epochs": 400, "patience": 5, "learning_rate": 0.1})
    report = train(graph, settings, 2)
    found = losses(report)[:, 1]
    assert report["best_epoch"] == int(found.argmin()) + 1
    assert len(found) == report["best_epoch"] + 5


def test_cora_equals_dense_reference(data_dir: Any) -> None:
    path = str((data_dir / "gnn" / "planetoid").path / "cora")
    settings = settings_of("gcn", **{**plain(), "epochs": 8})
    found = train(path, settings, 2, "cover")
    np.testing.assert_allclose(losses(found), reference(path, settings), rtol=1e-10)
    report = train(path, settings_of("gcn", epochs=60), 3)
    assert report["orders"] == ["cached", "transform"]
    assert report["best"]["test"] > 0.7
    json.dumps(report)
