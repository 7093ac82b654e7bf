"""The citation networks of Planetoid, whose files are pickles: read without running anything that is in them."""

from __future__ import annotations

import pickle
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, vstack

from sparsecomm.apps.gnn.dataset import Dataset, make_dataset
from sparsecomm.errors import InputError
from sparsecomm.typing import IntGlobal

_NUM_VAL: Final = 500


class _Csr:
    """What a pickled csr_matrix says of itself; scipy's own class would believe it."""


_ALLOWED: Final = {
    ("scipy.sparse.csr", "csr_matrix"): _Csr,
    ("numpy.core.multiarray", "_reconstruct"): np.ndarray.__reduce__(np.zeros(0))[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("collections", "defaultdict"): defaultdict,
    ("__builtin__", "list"): list,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise InputError(f"names {module}.{name}, which no Planetoid file needs; do not trust it")
        return _ALLOWED[module, name]


def is_planetoid(path: Path) -> bool:
    """Say whether `path` is DIR/NAME and DIR holds `ind.NAME.graph`."""
    return (path.parent / f"ind.{path.name}.graph").is_file()


def read_planetoid(path: Path) -> Dataset:
    """Read the public split of a citation network.

    Args:
        path: DIR/NAME, for the files DIR/ind.NAME.{x,tx,allx,y,ty,ally,graph,test.index}.

    Raises:
        InputError: a file is missing or damaged, or is a pickle of anything else.

    Source: Yang, Cohen, Salakhutdinov, "Revisiting semi-supervised learning with graph embeddings", 2016.
    """
    parts = {name: _load(path, name) for name in ("tx", "allx", "y", "ty", "ally", "graph")}
    tx, allx = _matrix(parts["tx"], "tx"), _matrix(parts["allx"], "allx")
    one_hot = {name: _array(parts[name], name) for name in ("y", "ty", "ally")}
    tested = _test_nodes(path)
    first, num_nodes = allx.shape[0], int(tested.max()) + 1
    if tested.min() != first or tx.shape[0] != tested.size or tx.shape[1] != allx.shape[1]:
        raise InputError("tx, allx and test.index do not fit each other; copy the files again")
    # Nodes without a row anywhere, some of Citeseer's, have neither features nor a label.
    features = csr_array(vstack([allx, csr_array((num_nodes - first, allx.shape[1]))], format="csr"))
    place = np.zeros(num_nodes, dtype=np.int64)
    place[:first], place[tested] = np.arange(first), first + np.arange(tested.size)
    known = np.zeros(num_nodes, dtype=bool)
    known[:first], known[tested] = True, True
    stacked = csr_array(vstack([allx, tx, csr_array((1, allx.shape[1]))], format="csr"))
    place[~known] = stacked.shape[0] - 1
    features = stacked[place]
    classes = np.concatenate([one_hot["ally"].argmax(axis=1), one_hot["ty"].argmax(axis=1), [0]])
    train, val, test = (np.zeros((1, num_nodes), dtype=bool) for _ in range(3))
    num_train = len(one_hot["y"])
    train[0, :num_train], val[0, num_train : num_train + _NUM_VAL], test[0, tested] = True, True, True
    edges = _edges(parts["graph"])
    return make_dataset(path.name, edges, features, classes[place], (train, val, test), counts=True)


def _load(path: Path, name: str) -> Any:
    file = path.parent / f"ind.{path.name}.{name}"
    try:
        with file.open("rb") as stream:
            return _Unpickler(stream, encoding="latin1").load()
    except InputError as err:
        raise InputError(f"{file.name} {err}") from None
    except OSError as err:
        raise InputError(f"{file.name} cannot be read: {err.strerror or err}") from err
    except Exception as err:  # damaged pickles raise anything
        raise InputError(f"{file.name} is damaged ({err or type(err).__name__}); copy it again") from err


def _test_nodes(path: Path) -> IntGlobal:
    file = path.parent / f"ind.{path.name}.test.index"
    try:
        nodes = np.array(file.read_text().split(), dtype=np.int64)
    except (OSError, ValueError, OverflowError) as err:
        raise InputError(f"{file.name} is no list of nodes: {err}") from err
    if not nodes.size or nodes.min() < 0 or np.unique(nodes).size != nodes.size or nodes.max() > 1 << 40:
        raise InputError(f"{file.name} must name every test node once; copy it again")
    return nodes


def _array(given: Any, name: str) -> npt.NDArray[Any]:
    if not isinstance(given, np.ndarray) or given.ndim != 2 or given.dtype.kind not in "iuf":
        raise InputError(f"{name} is not a table of numbers; copy it again")
    return given


def _matrix(given: Any, name: str) -> csr_array[Any]:
    state = vars(given) if isinstance(given, _Csr) else {}
    shape: Any = state.get("_shape")
    parts: list[Any] = [state.get(part) for part in ("data", "indices", "indptr")]
    if not isinstance(shape, tuple) or not all(isinstance(part, np.ndarray) and part.ndim == 1 for part in parts):
        raise InputError(f"{name} is not a sparse matrix; copy it again")
    data, indices, indptr = parts
    numbers = data.dtype.kind in "iuf" and indices.dtype.kind == indptr.dtype.kind == "i"
    if not numbers or indptr.shape != (shape[0] + 1,) or indices.shape != data.shape:
        raise InputError(f"{name} is not a sound sparse matrix; copy it again")
    inside = not indices.size or (indices.min() >= 0 and indices.max() < shape[1])
    if indptr[0] != 0 or indptr[-1] != data.size or (np.diff(indptr) < 0).any() or not inside:
        raise InputError(f"{name} has entries outside its shape; copy it again")
    return csr_array((data.astype(np.float32), indices, indptr), shape=shape)


def _edges(graph: Any) -> tuple[IntGlobal, IntGlobal]:
    if not isinstance(graph, dict) or not all(isinstance(to, list) for to in graph.values()):
        raise InputError("graph is not a table of neighbours; copy it again")
    try:
        counts = [len(to) for to in graph.values()]
        heads = np.repeat(np.array(list(graph), dtype=np.int64), counts)
        tails = np.array([node for to in graph.values() for node in to], dtype=np.int64)
    except (TypeError, ValueError, OverflowError) as err:
        raise InputError(f"graph names nodes that are not numbers: {err}") from err
    return heads, tails
