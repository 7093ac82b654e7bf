"""Data sets that PyTorch Geometric has processed and kept, read without it and without running their pickles."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array

from sparsecomm.apps.gnn.dataset import Dataset, are_counts, make_dataset
from sparsecomm.errors import InputError
from sparsecomm.typing import Bools

_CLASSES: Final = ("data.Data", "data.DataEdgeAttr", "data.DataTensorAttr", "storage.GlobalStorage")
_SPLITS: Final = ("train_mask", "val_mask", "test_mask")


def _stand_in(name: str) -> type:
    """Return a class that only holds what a pickle says of itself, by the name of one of PyTorch Geometric."""
    module, _, last = f"torch_geometric.data.{name}".rpartition(".")
    return type(last, (), {"__module__": module})


_STAND_INS: Final = [_stand_in(name) for name in _CLASSES]


def read_pyg(file: Path, name: str, seed: int) -> Dataset:
    """Read one graph: `x`, `edge_index`, `y`, and `{train,val,test}_mask` if there.

    Args:
        file: such as `processed/data.pt`.
        name: of the data.
        seed: of splits, where the file has none.

    Raises:
        InputError: the file is missing, damaged or names anything but tensors and graphs, or parts do not fit.
    """
    parts = _parts(_load(file), file.name)
    x, edges, labels = (_array(parts, key, file.name) for key in ("x", "edge_index", "y"))
    if x.ndim != 2 or x.dtype.kind not in "fiu" or edges.ndim != 2 or len(edges) != 2 or edges.dtype.kind not in "iu":
        raise InputError(f"{file.name} has features {x.shape} and edges {edges.shape}, not (nodes, f) and (2, edges)")
    masks: tuple[Bools, Bools, Bools] | None = None
    if all(torch.is_tensor(parts.get(key)) for key in _SPLITS):
        train, val, test = (_mask(parts[key]) for key in _SPLITS)
        masks = (train, val, test)
    features = csr_array(x.astype(np.float32))
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    ends = edges.astype(np.int64)
    return make_dataset(name, (ends[0], ends[1]), features, labels, masks, counts=are_counts(features), seed=seed)


def _load(file: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_STAND_INS):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as err:
        raise InputError(f"{file.name} is damaged, or names what no graph needs: {_first_line(err)}") from err
    except OSError as err:
        raise InputError(f"{file.name} cannot be read: {err.strerror or err}") from err
    except Exception as err:  # damaged files raise anything
        raise InputError(f"{file.name} is damaged ({_first_line(err)}); copy it again") from err


def _first_line(err: Exception) -> str:
    lines = str(err).splitlines() or [type(err).__name__]
    unsupported = [line for line in lines if "Unsupported" in line]
    return (unsupported or lines)[0].strip()


def _parts(given: Any, name: str) -> dict[str, Any]:
    """Return the attributes of the graph, in any of the forms of versions 1.3 to 2.7."""
    if not isinstance(given, tuple) or not given:
        raise InputError(f"{name} is not what PyTorch Geometric writes: it holds no tuple of data and slices")
    graph = given[0]
    if type(graph) in _STAND_INS:
        graph = vars(graph)
    if isinstance(graph, dict) and type(graph.get("_store")) in _STAND_INS:
        graph = vars(graph["_store"]).get("_mapping")
    if not isinstance(graph, dict):
        raise InputError(f"{name} holds no single graph")
    return graph


def _array(parts: dict[str, Any], key: str, name: str) -> npt.NDArray[Any]:
    found = parts.get(key)
    if not isinstance(found, torch.Tensor) or found.layout != torch.strided:
        raise InputError(f"{name} has no tensor {key}; it has {', '.join(sorted(map(str, parts))) or 'nothing'}")
    return np.asarray(found.detach().numpy())


def _mask(given: torch.Tensor) -> Bools:
    """Return (splits, nodes), given (nodes,) or (nodes, splits)."""
    return np.atleast_2d(np.asarray(given.numpy()).astype(bool).T)
