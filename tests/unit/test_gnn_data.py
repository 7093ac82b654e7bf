"""Data sets: what is in the real ones, and files that are broken or hostile."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array, save_npz

from sparsecomm.apps.gnn.dataset import draw_splits, make_dataset
from sparsecomm.apps.gnn.read import read_dataset
from sparsecomm.apps.gnn.score import accuracy, roc_auc
from sparsecomm.apps.gnn.settings import operator_of
from sparsecomm.collectives.transport.local import run_local
from sparsecomm.errors import InputError

# Nodes, classes, edges in both directions, features, nodes to train, validate and test; as PyTorch Geometric counts.
REAL = {
    "planetoid/cora": (2708, 7, 10556, 1433, [140, 500, 1000]),
    "planetoid/citeseer": (3327, 6, 9104, 3703, [120, 500, 1000]),
    "planetoid/pubmed": (19717, 3, 88648, 500, [60, 500, 1000]),
    "amazon_photo.npz": (7650, 8, 238162, 745, [160, 240, 7250]),
    "coauthor_cs.npz": (18333, 15, 163788, 6805, [300, 450, 17583]),
    "tolokers.npz": (11758, 2, 1038000, 10, [58790, 29390, 29400]),
}


@pytest.mark.parametrize("name", REAL)
def test_real_data(name: str, data_dir: Any) -> None:
    dataset = read_dataset(str((data_dir / "gnn").path / name))
    masks = (dataset.train, dataset.val, dataset.test)
    shape = (dataset.num_nodes, dataset.num_classes, dataset.adjacency.nnz, dataset.features.shape[1])
    assert (*shape, [int(mask.sum()) for mask in masks]) == REAL[name]
    assert not (masks[0] & masks[1]).any()
    assert not (masks[0] & masks[2]).any()
    assert (dataset.adjacency != dataset.adjacency.T).nnz == 0
    assert not dataset.adjacency.diagonal().any()


def test_operators() -> None:
    edges = (np.array([0, 1, 1, 2]), np.array([1, 0, 2, 2]))
    dataset = make_dataset("x", edges, csr_array(np.eye(4)), np.array([0, 1, 0, 1]), None, counts=False)
    dense = np.array([[0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(dataset.adjacency.toarray(), dense)
    loops = dense + np.eye(4)
    root = 1 / np.sqrt(loops.sum(axis=1))
    expected = {
        "gcn": root[:, None] * loops * root,
        "sage": dense / np.array([1, 2, 1, 1])[:, None],
        "gin": dense,
        "gat": loops,
    }
    for model, matrix in expected.items():
        np.testing.assert_allclose(operator_of(model, dataset.adjacency, np.float64).toarray(), matrix)


def test_drawn_splits() -> None:
    labels = np.random.default_rng(0).integers(0, 3, 400)
    train, val, test = (mask[0] for mask in draw_splits(labels, 1))
    assert (train.astype(int) + val + test == 1).all()
    assert np.bincount(labels[train]).tolist() == [20] * 3
    assert np.bincount(labels[val]).tolist() == [30] * 3
    assert (draw_splits(labels, 1)[0] == train).all()
    assert not (draw_splits(labels, 2)[0] == train).all()


class Evil:
    def __reduce__(self) -> Any:
        return (os.system, ("touch pwned",))


@pytest.mark.parametrize(
    ("part", "content", "message"),
    [
        ("graph", pickle.dumps(Evil(), protocol=2), "which no Planetoid file needs"),
        ("tx", pickle.dumps(np.zeros, protocol=2), "which no Planetoid file needs"),
        ("allx", b"", "is damaged"),
        ("graph", pickle.dumps([1, 2], protocol=2), "not a table of neighbours"),
        ("graph", pickle.dumps({0: ["x"]}, protocol=2), "not numbers"),
        ("graph", pickle.dumps({0: [99999999]}, protocol=2), "names node 99999999"),
        ("ally", pickle.dumps({}, protocol=2), "not a table of numbers"),
        ("tx", pickle.dumps({}, protocol=2), "not a sparse matrix"),
        ("test.index", b"1 2 2", "every test node once"),
        ("test.index", b"1 b", "no list of nodes"),
        ("y", None, "cannot be read"),
    ],
)
def test_broken_planetoid_is_refused(
    part: str, content: bytes | None, message: str, data_dir: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in (data_dir / "gnn" / "planetoid").path.glob("ind.cora.*"):
        shutil.copyfile(file, tmp_path / file.name)
    broken = tmp_path / f"ind.cora.{part}"
    broken.unlink()
    if content is not None:
        broken.write_bytes(content)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        read_dataset(str(tmp_path / "cora"))
    assert not (tmp_path / "pwned").exists()


def test_broken_arrays_are_refused(data_dir: Any, tmp_path: Path) -> None:
    with np.load((data_dir / "gnn").path / "amazon_photo.npz") as archive:
        arrays = dict(archive)
    path = tmp_path / "x.npz"
    for name, value, message in (
        ("adj_indices", arrays["adj_indices"] + 10000, "adj_indices must lie in"),
        ("x_indptr", arrays["x_indptr"][:-1], "do not fit"),
        ("y", arrays["y"] - 1, "whole numbers from 0"),
        ("x_data", np.full_like(arrays["x_data"], np.nan), "not finite"),
        ("x_shape", np.array([3]), "two numbers"),
    ):
        np.savez(path, **{**arrays, name: value})
        with pytest.raises(InputError, match=message):
            read_dataset(str(path))
    np.savez(path, y=arrays["y"])
    with pytest.raises(InputError, match="lacks adj_indptr"):
        read_dataset(str(path))
    save_npz(path, csr_array(np.eye(3)))
    with pytest.raises(InputError, match=r"needs x\.features\.npy beside it"):
        read_dataset(str(path))
    path.write_bytes(b"PK")
    with pytest.raises(InputError, match=r"not a sound \.npz"):
        read_dataset(str(path))
    with pytest.raises(InputError, match="no such file"):
        read_dataset(str(tmp_path / "nothing"))


def test_edge_list_with_arrays(tmp_path: Path) -> None:
    edges = tmp_path / "g.edges"
    edges.write_text("0 1\n1 2\n2 2\n3 0\n")
    with pytest.raises(InputError, match=r"needs g\.features\.npy"):
        read_dataset(str(edges))
    np.save(tmp_path / "g.features.npy", np.arange(8.0).reshape(4, 2))
    np.save(tmp_path / "g.labels.npy", np.array([0, 1, 0, 1]))
    for number, name in enumerate(("train", "val", "test")):
        np.save(tmp_path / f"g.{name}.npy", np.arange(4) == number)
    dataset = read_dataset(str(edges))
    assert dataset.adjacency.toarray().tolist() == [[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0]]
    assert dataset.features.toarray().tolist() == np.arange(8.0).reshape(4, 2).tolist()
    assert dataset.val.tolist() == [[False, True, False, False]]


@pytest.mark.parametrize("ranks", [1, 3])
def test_scores(ranks: int) -> None:
    rng = np.random.default_rng(0)
    outputs, labels, mask = rng.integers(0, 5, (60, 2)).astype(float), rng.integers(0, 2, 60), rng.random(60) < 0.7
    margin = outputs[:, 1] - outputs[:, 0]
    above = margin[mask & (labels == 1)][:, None] - margin[mask & (labels == 0)]
    auc = ((above > 0) + 0.5 * (above == 0)).mean()
    right = (outputs.argmax(axis=1) == labels)[mask].mean()

    def body(transport: Any) -> tuple[float, float]:
        mine = slice(transport.rank, None, ranks)
        masks = {"test": mask[mine]}
        given = (outputs[mine], labels[mine], masks, transport)
        return accuracy(*given)["test"], roc_auc(*given)["test"]

    for found in run_local(ranks, body):
        np.testing.assert_allclose(found, (right, auc))
