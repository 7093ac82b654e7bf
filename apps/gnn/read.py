"""Where data sets are read from."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from sparsecomm.apps.gnn.dataset import Dataset
from sparsecomm.apps.gnn.ogb import is_ogb, read_ogb
from sparsecomm.apps.gnn.plain import is_matrix, read_edge_list, read_plain
from sparsecomm.apps.gnn.planetoid import is_planetoid, read_planetoid
from sparsecomm.errors import InputError


def read_dataset(spec: str, *, seed: int = 0) -> Dataset:
    """Read a data set.

    Args:
        spec: `DIR/NAME` where DIR holds the files `ind.NAME.*` of Planetoid; a folder of the Open Graph Benchmark, or
            of PyTorch Geometric, or its `.pt`; an `.npz` of plain arrays `adj_indptr, adj_indices, x_indptr, x_indices,
            x_data, x_shape, y` and masks; or an edge list with `.features.npy` and `.labels.npy` beside it.
        seed: of the splits, where the data have none: 20 nodes of a class to train, 30 to validate, the others to test.

    Raises:
        InputError: the data cannot be read or do not fit each other.
    """
    path = Path(spec)
    try:
        return _reader(path)(path, seed)
    except InputError as err:
        raise InputError(f"{spec}: {err}") from err


def _reader(path: Path) -> Callable[[Path, int], Dataset]:
    if is_planetoid(path):
        return lambda folder, seed: read_planetoid(folder)
    if path.is_dir():
        return _folder_reader(path)
    if path.suffix == ".pt":
        return lambda file, seed: _read_pyg(file, file.stem, seed)
    if not path.is_file():
        there = _planetoid_names(path.parent)
        raise InputError(
            f"no such file, and no {path.parent / f'ind.{path.name}.graph'}; "
            f"{_give(path.parent, there) if there else 'give DIR/cora, a folder, FILE.npz or an edge list'}"
        )
    return read_plain if path.suffix == ".npz" and not is_matrix(path) else read_edge_list


def _folder_reader(path: Path) -> Callable[[Path, int], Dataset]:
    """Choose by what a folder holds: original files before processed ones."""
    if is_ogb(path):
        return lambda folder, seed: read_ogb(folder)
    graphs = sorted(path.glob("raw/ind.*.graph"))
    if graphs:
        name = graphs[0].name.split(".")[1]
        return lambda folder, seed: read_planetoid(folder / "raw" / name)
    here = _planetoid_names(path)
    if here:
        raise InputError(f"the folder holds several data sets; {_give(path, here)}")
    processed = sorted(file for file in path.glob("processed/*.pt") if not file.name.startswith("pre_"))
    if len(processed) == 1:
        return lambda folder, seed: _read_pyg(processed[0], folder.name, seed)
    raise InputError(
        "the folder holds neither raw/edge.csv.gz of the Open Graph Benchmark, nor raw/ind.NAME.graph of Planetoid, "
        f"nor one file processed/*.pt of PyTorch Geometric (it has {len(processed)})"
    )


def _planetoid_names(folder: Path) -> list[str]:
    return sorted(file.name.split(".")[1] for file in folder.glob("ind.*.graph"))


def _give(folder: Path, names: list[str]) -> str:
    return f"give {folder / names[0]}" + "".join(f" or {name}" for name in names[1:])


def _read_pyg(file: Path, name: str, seed: int) -> Dataset:
    if find_spec("torch") is None:
        raise InputError(f"{file.name} needs PyTorch to be read; install it with: pip install 'sparsecomm[torch]'")
    from sparsecomm.apps.torch.pyg import read_pyg

    return read_pyg(file, name, seed)
