"""Where data sets are read from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sparsecomm.apps.gnn.dataset import Dataset
from sparsecomm.apps.gnn.plain import read_edge_list, read_plain
from sparsecomm.apps.gnn.planetoid import is_planetoid, read_planetoid
from sparsecomm.errors import InputError


def read_dataset(spec: str, *, seed: int = 0) -> Dataset:
    """Read a data set.

    Args:
        spec: `DIR/NAME` where DIR holds the files `ind.NAME.*` of Planetoid; an `.npz` of plain arrays `adj_indptr,
            adj_indices, x_indptr, x_indices, x_data, x_shape, y` and masks; or an edge list with `.features.npy` and
            `.labels.npy` beside it.
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
    if not path.is_file():
        raise InputError(
            f"no such file, and no {path.parent / f'ind.{path.name}.graph'}; give DIR/cora, FILE.npz or an edge list"
        )
    return read_plain if path.suffix == ".npz" else read_edge_list
