"""What training may do with the rows of ghosts instead of fetching all of them now: exact where it should be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparsecomm.apps.gnn.settings import Settings, settings_of
from sparsecomm.apps.gnn.share import bring_dataset
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.collectives.transport.local import run_local
from sparsecomm.errors import InputError
from sparsecomm.topology import Topology
from tests.gnn_cases import TOPOLOGIES, losses, plain, train, write_graph

pytest.importorskip("torch", reason="PyTorch is not installed")

import torch

from sparsecomm.apps.torch import models
from sparsecomm.apps.torch.graph import Graph
from sparsecomm.apps.torch.neighbours import Fresh, Sampled, Stale

RANKS = 3


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_graph(tmp_path_factory.mktemp("graph") / "small.npz")


def over_ranks(path: str, body: Callable[[Graph, Transport], None]) -> None:
    """Call `body` with the part of the graph of every rank."""
    topology, settings = Topology.parse(TOPOLOGIES[RANKS]), settings_of("gcn", dtype="float64")

    def run(transport: Transport) -> None:
        share = bring_dataset(path, settings, topology, transport)
        made = Graph(share.rows, share.layouts, topology, transport, strategy="hierarchical")
        body(made, transport)
        made.close()

    run_local(RANKS, run, deadline_s=200)


@pytest.mark.parametrize("model", ["gcn", "sage", "gat"])
def test_limits_are_exact(model: str, graph: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No age and the whole share train as usual, whether the first layer is cached or not."""
    for cache_input in (True, False):
        settings = settings_of(model, **{**plain(), "epochs": 4, "cache": cache_input, "hidden": 8, "heads": 2})
        expected = losses(train(graph, settings, RANKS, "hierarchical"))
        for make in (lambda graph, *_: Stale(graph, 0), lambda graph, _, layer: Sampled(graph, 1.0, 0, layer)):
            with monkeypatch.context() as patched:
                patched.setattr(models, "neighbours_of", make)
                found = losses(train(graph, settings, RANKS, "hierarchical"))
            np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("age", [1, 3])
def test_stale_rows_are_those_of_earlier_steps(age: int, graph: str) -> None:
    def body(graph: Graph, transport: Transport) -> None:
        rng, stale, fresh = np.random.default_rng(transport.rank), Stale(graph, age), Fresh(graph)
        x = [torch.from_numpy(rng.standard_normal((graph.num_own, 4))).requires_grad_() for _ in range(3 * age)]
        for step, now in enumerate(x):
            late, then = stale.ghosts(now, step), fresh.ghosts(x[max(step - age, 0)], step)
            np.testing.assert_array_equal(late.detach(), then.detach())
            upstream = [torch.full_like(late, 1.0 + number) for number in (step, max(step - age, 0))]
            late.backward(upstream[0])
            got, now.grad = now.grad, None
            (expected,) = torch.autograd.grad(then, x[max(step - age, 0)], upstream[1])
            np.testing.assert_array_equal(got, expected)
            if step == 2:  # evaluation does not wait for its turn, and takes nobody else's
                np.testing.assert_array_equal(stale.sums(now, None).detach(), fresh.sums(now, None).detach())
        stale.close()

    over_ranks(graph, body)


def test_sampled_sums_are_right_in_the_mean(graph: str) -> None:
    """Of many draws the mean comes near, moving the share of the rows; each has the gradient of just what it did."""
    draws, share = 200, 0.5

    def body(graph: Graph, transport: Transport) -> None:
        rng, sampled = np.random.default_rng(transport.rank), Sampled(graph, share, 0, 1)
        x, y = (torch.from_numpy(rng.random((graph.num_own, 2))) for _ in range(2))
        x.requires_grad_()
        exact = Fresh(graph).sums(x, None).detach().numpy()
        found, before = [], graph.executed
        for step in range(draws):
            sums = sampled.sums(x, step)
            found.append(sums.detach().numpy())
        rows = (graph.executed - before).rows_sent.sum()
        assert abs(rows / (graph.pass_rows.sum() * draws) - share) < 0.05
        errors = np.std(found, axis=0) / np.sqrt(draws)
        assert (abs(np.mean(found, axis=0) - exact) < 5 * errors + 1e-12).all()
        (gradient,) = torch.autograd.grad(sums, x, y)
        # Sums are linear in X: <S X, Y> = <X, S' Y> over all ranks.
        sides = np.array([(sums * y).sum().item(), (x * gradient).sum().item()])
        np.testing.assert_allclose(*transport.reduce(sides, "sum"), rtol=1e-12)

    over_ranks(graph, body)


@pytest.mark.parametrize(
    "changes",
    [{"stale": 1}, {"stale": 2, "model": "gat"}, {"boundary_sample": 0.3, "model": "sage"}],
    ids=str,
)
def test_training_still_converges(changes: dict[str, Any], graph: str) -> None:
    model = changes.get("model", "gcn")
    exact = settings_of(model, epochs=40, dropout=0.0, hidden=8, heads=2)
    whole, found = (train(graph, settings, RANKS) for settings in (exact, replace(exact, **changes)))
    near, reached = losses(whole)[:, 0], losses(found)[:, 0]
    assert (near != reached).any()
    assert near[0] - reached[-1] > 0.3 * (near[0] - near[-1]), (near, reached)
    sent, in_full = (sum(sum(epoch["rows"].values()) for epoch in report["epochs"]) for report in (found, whole))
    if "stale" not in changes:
        assert sent < 0.5 * in_full


@pytest.mark.parametrize("model", ["gcn", "sage", "gin", "gat"])
def test_mixed_precision(model: str, graph: str, tmp_path: Path) -> None:
    """Dense products are rounded, sums and weights are not."""
    dense = write_graph(tmp_path / "dense.npz", density=0.6)
    for path in (graph, dense):
        settings = settings_of(model, epochs=4, layers=3, hidden=8, heads=2)
        whole, mixed = (losses(train(path, replace(settings, amp=amp), RANKS)) for amp in (False, True))
        np.testing.assert_allclose(mixed[0], whole[0], rtol=0.03)
        np.testing.assert_allclose(mixed, whole, rtol=0.1)
        assert (mixed != whole).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stale": -1}, "stale -1 is too small"),
        ({"boundary_sample": 0.0}, r"boundary sample 0\.0 is not a share"),
        ({"boundary_sample": float("nan")}, "is not a share"),
        ({"amp": True, "dtype": "float64"}, "keeps weights in float32"),
        ({"stale": 1, "boundary_sample": 0.5}, "either stale or sampled"),
        ({"stale": 1, "recompute": True}, "fetch stale rows twice"),
        ({"boundary_sample": 0.5, "model": "gat"}, "which a sample does not give"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Settings(**changes)


def test_runs_that_do_not_fit_are_refused(graph: str, tmp_path: Path) -> None:
    stale = settings_of("gcn", epochs=1, stale=1)
    with pytest.raises(InputError, match="rows are under way, which a checkpoint does not hold"):
        train(graph, stale, RANKS, checkpoint=tmp_path / "state.npz")
    with pytest.raises(InputError, match="stale or sampled ghosts are whole rows"):
        train(graph, stale, RANKS, "cover")
