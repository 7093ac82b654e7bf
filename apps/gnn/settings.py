"""What to train and how: the settings of the papers by model, and what a run may change."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from sparsecomm.errors import InputError

OPTIMISERS: Final = ("adam", "lion", "sign-lion")
"""`lion` moves by the sign of the momentum of the summed gradients; with `sign-lion` ranks vote on signs of theirs."""


WIRES: Final = ("", "bfloat16", "float16", "int8")


@dataclass(frozen=True, slots=True)
class Settings:
    """A model and how it is trained.

    Args:
        model: a name of `MODELS`.
        hidden: columns of a hidden layer, of every head for `gat`.
        layers: of the model.
        heads: attentions side by side in the hidden layers of `gat`.
        out_heads: attentions averaged in its last layer.
        dropout: share of the inputs of every layer (and of attention) that a training step drops.
        optimiser: a name of `OPTIMISERS`.
        learning_rate, weight_decay: of the optimiser; the decay is that of the first layer only where `decay_first`.
        epochs: at most.
        patience: epochs without a lower validation loss before training ends; 0 goes to the end.
        dtype: float32 or float64.
        seed: of weights, dropout, and of splits that are drawn.
        cache: whether features of ghosts may be kept, see `choose_orders`.
        wire: what rows are rounded to on their way, an approximation; empty sends them as they are.
        recompute: keep the inputs of layers only, and compute the rest again for the gradients.
        amp: multiply dense matrices in bfloat16, the weights being kept in float32.
        stale: steps by which rows of ghosts, and gradients for them, may be old in training, an approximation.
        boundary_sample: share of the ghosts that a training step fetches, an approximation below 1.
    """

    model: str = "gcn"
    hidden: int = 16
    layers: int = 2
    heads: int = 8
    out_heads: int = 1
    dropout: float = 0.5
    optimiser: str = "adam"
    learning_rate: float = 0.01
    weight_decay: float = 5e-4
    decay_first: bool = True
    epochs: int = 200
    patience: int = 0
    dtype: str = "float32"
    seed: int = 0
    cache: bool = True
    wire: str = ""
    recompute: bool = False
    amp: bool = False
    stale: int = 0
    boundary_sample: float = 1.0

    def __post_init__(self) -> None:
        whole = {
            "hidden": 1,
            "layers": 1,
            "heads": 1,
            "out_heads": 1,
            "epochs": 1,
            "patience": 0,
            "seed": 0,
            "stale": 0,
        }
        low = [name for name, least in whole.items() if getattr(self, name) < least]
        if low:
            raise InputError(f"{low[0]} {getattr(self, low[0])} is too small; give at least {whole[low[0]]}")
        if self.model not in MODELS:
            raise InputError(f"unknown model {self.model!r}; give one of {', '.join(MODELS)}")
        if self.optimiser not in OPTIMISERS:
            raise InputError(f"unknown optimiser {self.optimiser!r}; give one of {', '.join(OPTIMISERS)}")
        if self.wire not in WIRES:
            raise InputError(f"unknown wire format {self.wire!r}; give one of {', '.join(WIRES[1:])}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout {self.dropout} is not a share; give a number from 0 to below 1")
        if not (np.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise InputError(f"learning rate {self.learning_rate} is not above 0; give for example 0.01")
        if not (np.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise InputError(f"weight decay {self.weight_decay} is below 0; give for example 5e-4")
        self._check_approximations()

    @property
    def fetches_ghosts(self) -> bool:
        """Whether layers need whole rows of ghosts, which strategies that move partial sums do not bring."""
        return self.model == "gat" or self.stale > 0 or self.boundary_sample < 1

    def _check_approximations(self) -> None:
        if not 0 < self.boundary_sample <= 1:
            raise InputError(f"boundary sample {self.boundary_sample} is not a share; give a number above 0, at most 1")
        if self.amp and self.dtype != "float32":
            raise InputError(f"mixed precision keeps weights in float32, not {self.dtype}; give one or the other")
        if self.stale and self.boundary_sample < 1:
            raise InputError("rows of ghosts are either stale or sampled; give one or the other")
        if self.stale and self.recompute:
            raise InputError("layers that are recomputed would fetch stale rows twice; give stale or recompute")
        if self.boundary_sample < 1 and self.model == "gat":
            raise InputError(
                "gat divides by sums over all neighbours, which a sample does not give; give another model"
            )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def widths(self, num_features: int, num_classes: int) -> list[int]:
        """Return the columns before, between and after the layers, as they travel."""
        wide = self.hidden * (self.heads if self.model == "gat" else 1)
        last = num_classes * (self.out_heads if self.model == "gat" else 1)
        return [num_features, *[wide] * (self.layers - 1), last]


# GCN as in Kipf and Welling 2017 and GAT as in Velickovic et al. 2018, section 3.3; the others as GCN, wider, with a
# decay of all weights.
MODELS: Final[dict[str, dict[str, Any]]] = {
    "gcn": {},
    "sage": {"hidden": 64, "decay_first": False},
    "gin": {"hidden": 64, "decay_first": False},
    "gat": {
        "hidden": 8,
        "dropout": 0.6,
        "learning_rate": 0.005,
        "decay_first": False,
        "epochs": 1000,
        "patience": 100,
    },
}


def settings_of(model: str, **changes: Any) -> Settings:
    """Return the published settings of a model with changes; None changes nothing.

    Raises:
        InputError: no such model, or a value out of range.
    """
    if model not in MODELS:
        raise InputError(f"unknown model {model!r}; give one of {', '.join(MODELS)}")
    given = {name: value for name, value in changes.items() if value is not None}
    return replace(Settings(), **{**MODELS[model], "model": model, **given})


def operator_of(model: str, adjacency: csr_array[Any], dtype: npt.DTypeLike) -> csr_array[Any]:
    """Return what a model multiplies features with, (n, n) in `dtype`, columns ascending.

    `gcn`: D^-1/2 (A + I) D^-1/2, D the degrees with self-loops. `sage`: the mean over neighbours, zero for nodes
    without any. `gin`: A. `gat`: the structure of A + I.

    Args:
        model: a name of `MODELS`.
        adjacency: (n, n) ones without self-loops.
        dtype: of the result.
    """
    degrees = np.diff(adjacency.indptr)
    return operator_rows(model, adjacency, 0, degrees[adjacency.indices], dtype)


def operator_rows(
    model: str, adjacency: csr_array[Any], first: int, degrees: npt.NDArray[Any], dtype: npt.DTypeLike
) -> csr_array[Any]:
    """Return some rows of what a model multiplies features with; see `operator_of`.

    Args:
        model: a name of `MODELS`.
        adjacency: (m, n) ones without self-loops, rows `first .. first + m - 1` of all.
        first: the first of them.
        degrees: (nnz,) neighbours of the node of every column entry, in CSR order.
        dtype: of the result.
    """
    own = np.diff(adjacency.indptr)
    # Degrees with the self-loop, of the column of every entry: the smallest is 1, so that none vanishes in a sum.
    matrix = csr_array((degrees + 1.0, adjacency.indices, adjacency.indptr), shape=adjacency.shape)
    if model in ("gcn", "gat"):
        places = first + np.arange(own.size), np.arange(own.size + 1)
        matrix = csr_array(matrix + csr_array((own + 1.0, *places), shape=matrix.shape))
    matrix.sort_indices()
    if model == "gcn":
        row = np.repeat(own + 1, np.diff(matrix.indptr))
        matrix.data = (1 / np.sqrt(row * matrix.data)).astype(dtype)
    elif model == "sage":
        matrix.data = (1 / np.repeat(own, own)).astype(dtype)
    else:
        matrix.data = np.ones(matrix.nnz, dtype=dtype)
    return matrix
