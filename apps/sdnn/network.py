"""The layers of a sparse network: generated (RadiX-Net) or read from the files of the Graph Challenge."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from scipy.sparse import csr_array

from sparsecomm.errors import InputError
from sparsecomm.io.csr import Matrix, canonical
from sparsecomm.io.generators import radixnet
from sparsecomm.io.matrix import read_matrix

# The bias of every neuron, by neurons; the challenge fixes it for its four sizes.
BIASES: Final = {1024: -0.3, 4096: -0.35, 16384: -0.4, 65536: -0.45}

# Largest activation.
CLIP: Final = 32.0


class Network(Protocol):
    """Layers of equally many neurons, all with one bias; layer l has the weights of matrix `l % num_distinct`."""

    @property
    def name(self) -> str:
        """What the user asked for."""

    @property
    def neurons(self) -> int:
        """Neurons of a layer."""

    @property
    def num_layers(self) -> int:
        """Layers that an input passes."""

    @property
    def num_distinct(self) -> int:
        """Layers with weights of their own; the others repeat them in turn."""

    @property
    def bias(self) -> float:
        """Added to every sum, at most 0, so that an input without activations keeps none."""

    def matrix(self, distinct: int) -> Matrix:
        """Return (neurons, neurons) float32 weights: rows = TO, columns = FROM, canonical."""


@dataclass(frozen=True)
class RadixNetwork:
    """The generated networks of the challenge: base layers, then copies of them that read permuted neurons.

    Args:
        neurons: of a layer, 16 times a power of two.
        num_layers: of the network.
        bias: of every neuron.
        seed: of the permutations, one for each copy but the first, which is plain.

    Source: Kepner, Robinett, "RadiX-Net: structured sparse matrices for deep neural networks" (2019).
    """

    neurons: int
    num_layers: int
    bias: float
    seed: int = 0

    @property
    def name(self) -> str:
        return f"radixnet:{self.neurons}:{self.seed}"

    @property
    def num_distinct(self) -> int:
        return self.num_layers

    @property
    def num_base(self) -> int:
        """Base layers: the radices of the network, all two."""
        return (self.neurons // 16).bit_length() - 1

    def matrix(self, distinct: int) -> Matrix:
        copy, layer = divmod(distinct, self.num_base)
        base = radixnet(self.neurons, layer)
        if copy == 0:
            return canonical(base, np.float32)
        permuted = self._place(copy)[base.indices]
        return canonical(csr_array((base.data, permuted, base.indptr), shape=base.shape), np.float32)

    def _place(self, copy: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Return the neuron that stands where neuron m stood: W[i, :] = W_k[perm[i], :] has perm[place[m]] = m."""
        perm = np.random.default_rng([self.seed, copy]).permutation(self.neurons)
        place = np.empty_like(perm)
        place[perm] = np.arange(perm.size)
        return place


@dataclass(frozen=True)
class FileNetwork:
    """Layers read from files, each holding W(from, to); a network with more layers repeats them in turn.

    Args:
        folder: where the files are.
        files: of layers 1, 2, ...
        neurons: of a layer.
        num_layers: of the network.
        bias: of every neuron.
    """

    folder: Path
    files: tuple[Path, ...]
    neurons: int
    num_layers: int
    bias: float

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def num_distinct(self) -> int:
        return min(len(self.files), self.num_layers)

    def matrix(self, distinct: int) -> Matrix:
        path = self.files[distinct]
        found = read_matrix(str(path), dtype=np.float32, one_based=True)
        if max(found.shape) > self.neurons:
            raise InputError(f"{path}: is {found.shape[0]} x {found.shape[1]}; expected {self.neurons} neurons")
        # A list of edges ends with the last neuron that has one.
        indptr = np.pad(found.indptr, (0, self.neurons - found.shape[0]), mode="edge")
        whole = csr_array((found.data, found.indices, indptr), shape=(self.neurons, self.neurons))
        return canonical(csr_array(whole.T.tocsr()))


def check_bias(bias: float | None, neurons: int) -> float:
    """Return the bias asked for, or that of the challenge for a size.

    Raises:
        InputError: it is positive, or neither given nor known.
    """
    found = BIASES.get(neurons) if bias is None else bias
    if found is None:
        sizes = ", ".join(map(str, BIASES))
        raise InputError(f"no bias is known for {neurons} neurons, only for {sizes}; give one with --bias")
    if not -1e6 <= found <= 0:
        raise InputError(f"bias {found} is not between -1e6 and 0; give a bias that leaves dead neurons dead")
    return found
