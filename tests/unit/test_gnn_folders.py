"""Folders of other libraries: what is in them, and files that are broken or hostile."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from sparsecomm.apps.gnn.dataset import Dataset
from sparsecomm.apps.gnn.read import read_dataset
from sparsecomm.errors import InputError
from tests.gnn_cases import FEATURES, NODES, write_graph
from tests.unit.test_gnn_data import Evil


@pytest.fixture
def graph(tmp_path: Path) -> Dataset:
    return read_dataset(write_graph(tmp_path / "small.npz"))


def same(found: Dataset, graph: Dataset, splits: int = 1) -> None:
    assert (found.adjacency != graph.adjacency).nnz == 0
    np.testing.assert_allclose(found.features.toarray(), graph.features.toarray(), rtol=1e-6)
    np.testing.assert_array_equal(found.labels, graph.labels)
    for name in ("train", "val", "test"):
        np.testing.assert_array_equal(getattr(found, name), getattr(graph, name)[:splits])


def write_csv(path: Path, table: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt") as file:
        np.savetxt(file, table, delimiter=",", fmt="%d" if table.dtype.kind in "iu" else "%.8g")


def write_ogb(path: Path, graph: Dataset) -> None:
    rows, cols = graph.adjacency.nonzero()
    once = rows < cols
    tables = {"edge": np.stack([rows, cols], axis=1)[once], "node-label": graph.labels[:, None]}
    for name, table in (tables | {"node-feat": graph.features.toarray()}).items():
        write_csv(path / "raw" / f"{name}.csv.gz", table)
    for name, mask in (("train", graph.train), ("valid", graph.val), ("test", graph.test)):
        write_csv(path / "split" / "time" / f"{name}.csv.gz", np.flatnonzero(mask[0]))


def test_ogb_folder(graph: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "ogbn_small"
    write_ogb(path, graph)
    found = read_dataset(str(path))
    same(found, graph)
    assert found.name == "ogbn_small"


@pytest.mark.parametrize(
    ("file", "table", "message"),
    [
        ("raw/node-label", np.zeros((NODES, 3), dtype=int), "3 labels a node"),
        ("raw/node-label", np.zeros((2, 1), dtype=int), f"labels must be {NODES} whole numbers"),
        ("raw/edge", np.zeros((4, 3), dtype=int), "not the two ends of an edge"),
        ("raw/edge", np.array([[0, 1000]]), "names node 1000"),
        ("raw/node-feat", None, "needs raw/node-feat"),
        ("raw/node-feat", b"a,b", "no sound table of numbers"),
        ("split/time/train", np.array([NODES]), f"names node {NODES}"),
        ("split/other/train", np.array([1]), "it holds other, time"),
    ],
)
def test_broken_ogb_folders_are_refused(file: str, table: Any, message: str, graph: Dataset, tmp_path: Path) -> None:
    write_ogb(tmp_path / "ogb", graph)
    path = tmp_path / "ogb" / f"{file}.csv.gz"
    if table is None:
        path.unlink()
    elif isinstance(table, bytes):
        path.write_bytes(table)
    else:
        write_csv(path, table)
    with pytest.raises(InputError, match=message):
        read_dataset(str(tmp_path / "ogb"))


class Data:
    """Stands for the class of PyTorch Geometric, whose name pickles get."""


class GlobalStorage:
    """Likewise."""


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> Any:
    """PyTorch, and classes that are pickled by the names of those of PyTorch Geometric."""
    for name, made in (("data", Data), ("storage", GlobalStorage)):
        module = ModuleType(f"torch_geometric.data.{name}")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(module, made.__name__, made, raising=False)
        monkeypatch.setattr(made, "__module__", module.__name__)
    for name in ("torch_geometric", "torch_geometric.data"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    return pytest.importorskip("torch", reason="PyTorch is not installed")


def parts(torch: Any, graph: Dataset) -> dict[str, Any]:
    rows, cols = graph.adjacency.nonzero()
    tensors = {"x": graph.features.toarray(), "edge_index": np.stack([rows, cols]), "y": graph.labels}
    masks = {f"{name}_mask": getattr(graph, name).T for name in ("train", "val", "test")}
    return {name: torch.from_numpy(np.ascontiguousarray(part)) for name, part in (tensors | masks).items()}


@pytest.mark.parametrize("form", ["dictionary", "storage", "attributes"])
def test_pyg_folder(form: str, torch: Any, graph: Dataset, tmp_path: Path) -> None:
    """As versions from 2.4, from 2.0 and before write it."""
    held: Any = parts(torch, graph)
    if form != "dictionary":
        data, store = Data(), GlobalStorage()
        vars(store).update(_mapping=held, _parent=data)
        vars(data).update({"_store": store} if form == "storage" else held)
        held = data
    file = tmp_path / "Small" / "processed" / "data.pt"
    file.parent.mkdir(parents=True)
    torch.save((held, None, Data) if form == "dictionary" else (held, None), file)
    torch.save("none", file.with_name("pre_filter.pt"))
    for path in (tmp_path / "Small", file):
        same(read_dataset(str(path)), graph, splits=2)


def test_broken_pyg_files_are_refused(torch: Any, graph: Dataset, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    file, held = tmp_path / "data.pt", parts(torch, graph)
    whole = tmp_path / "whole.pt"
    torch.save((held, None), whole)
    for content, message in (
        ((Evil(), None), "names what no graph needs"),
        ([1, 2], "no tuple of data and slices"),
        ((3, None), "no single graph"),
        (({**held, "x": None}, None), "has no tensor x; it has edge_index"),
        (({**held, "x": held["x"][0]}, None), r"features \(40,\)"),
        (({**held, "y": held["y"][:5]}, None), f"labels must be {NODES} whole numbers"),
        (({**held, "edge_index": held["edge_index"] + NODES}, None), f"features of {NODES} nodes"),
        (whole.read_bytes()[:3000], "data.pt is damaged"),
        (b"", "data.pt is damaged"),
        (None, "data.pt cannot be read"),
    ):
        file.unlink(missing_ok=True)
        if isinstance(content, bytes):
            file.write_bytes(content)
        elif content is not None:
            torch.save(content, file)
        with pytest.raises(InputError, match=message):
            read_dataset(str(file))
    assert not (tmp_path / "pwned").exists()
    assert held["x"].shape == (NODES, FEATURES)


def test_planetoid_inside_a_folder(data_dir: Any, tmp_path: Path) -> None:
    """Original files are read even where there are processed ones."""
    folder = tmp_path / "Cora"
    folder.mkdir()
    (folder / "raw").symlink_to((data_dir / "gnn" / "planetoid").path)
    with pytest.raises(InputError, match="holds neither"):
        read_dataset(str(tmp_path))
    assert read_dataset(str(folder)).name in ("citeseer", "cora", "pubmed")


def test_a_planetoid_folder_says_what_it_holds(tmp_path: Path) -> None:
    for name in ("pubmed", "cora"):
        (tmp_path / f"ind.{name}.graph").touch()
    with pytest.raises(InputError, match=r"holds several data sets; give .*/cora or pubmed"):
        read_dataset(str(tmp_path))
    with pytest.raises(InputError, match=r"no such file, .*; give .*/cora or pubmed"):
        read_dataset(str(tmp_path / "corra"))
