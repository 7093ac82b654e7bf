"""What is right: a plain loop of scipy over all layers and all images."""

from __future__ import annotations

from typing import Final

import numpy as np

from sparsecomm.apps.sdnn.inputs import Inputs
from sparsecomm.apps.sdnn.network import CLIP, Network
from sparsecomm.io.csr import Matrix
from sparsecomm.typing import IntGlobal

_IMAGES: Final = 1024  # at a time, so that their activations fit


def plain_categories(network: Network, inputs: Inputs) -> IntGlobal:
    """Return the images that are alive after all layers, ascending: each layer is one sparse-times-dense product.

    Args:
        network: all of whose layers are held in memory.
        inputs: the images.
    """
    matrices = [network.matrix(distinct) for distinct in range(network.num_distinct)]
    alive = [
        _alive(network, matrices, inputs, np.arange(begin, min(begin + _IMAGES, inputs.count)))
        for begin in range(0, inputs.count, _IMAGES)
    ]
    return np.concatenate([np.zeros(0, dtype=np.int64), *alive])


def _alive(network: Network, matrices: list[Matrix], inputs: Inputs, images: IntGlobal) -> IntGlobal:
    found = inputs.pixels(images)
    y = np.zeros((network.neurons, images.size), dtype=np.float32)
    y[found.neuron, found.image] = found.value
    for layer in range(network.num_layers):
        z = matrices[layer % len(matrices)] @ y
        y = np.where(z != 0, np.clip(z + np.float32(network.bias), 0, np.float32(CLIP)), np.float32(0))
    alive: IntGlobal = images[y.sum(axis=0) > 0]
    return alive
