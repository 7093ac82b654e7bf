"""The images that a network looks at: given, or drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from sparsecomm.io.csr import Matrix
from sparsecomm.typing import IntGlobal

# Images drawn together, and dealt to ranks together.
DEALT: Final = 8

# The official images have one pixel in ten set, at every size.
_MEAN_DENSITY: Final = 0.104
_MAX_DENSITY: Final = 0.9


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """The pixels of some images that are not zero.

    Args:
        image: (n,) int64, place of the image among those asked for.
        neuron: (n,) int64.
        value: (n,) float32.
    """

    image: IntGlobal
    neuron: IntGlobal
    value: npt.NDArray[np.float32]


class Inputs(Protocol):
    """Images, counted from 0."""

    @property
    def name(self) -> str:
        """Where they come from."""

    @property
    def count(self) -> int:
        """How many there are."""

    def pixels(self, images: IntGlobal) -> Pixels:
        """Return the pixels of `images`, which ascend."""


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """Images that were read.

    Args:
        name: of the file.
        matrix: (images, neurons).
    """

    name: str
    matrix: Matrix

    @property
    def count(self) -> int:
        return int(self.matrix.shape[0])

    def pixels(self, images: IntGlobal) -> Pixels:
        picked = self.matrix[images]
        image = np.repeat(np.arange(images.size, dtype=np.int64), np.diff(picked.indptr))
        return Pixels(image, picked.indices.astype(np.int64), picked.data.astype(np.float32))


@dataclass(frozen=True, slots=True)
class Drawn:
    """Random images of zeros and ones: each has a density of its own, drawn from an exponential distribution.

    On average a tenth of the pixels is set, as in the official images. Most images are lighter and die; the few dense
    ones live through all layers. An image depends on the seed and its number alone, not on who asks for it.

    Args:
        count: images.
        neurons: pixels of an image.
        seed: of the draws.
    """

    count: int
    neurons: int
    seed: int = 0

    @property
    def name(self) -> str:
        return f"drawn:{self.seed}"

    def pixels(self, images: IntGlobal) -> Pixels:
        blocks = np.unique(images // DEALT)
        found = [np.flatnonzero(self._block(int(block))) + block * DEALT * self.neurons for block in blocks]
        image, neuron = np.divmod(np.concatenate([np.zeros(0, dtype=np.int64), *found]), self.neurons)
        place = np.searchsorted(images, image)
        asked = np.append(images, -1)[place] == image
        return Pixels(place[asked], neuron[asked], np.ones(int(asked.sum()), dtype=np.float32))

    def _block(self, block: int) -> npt.NDArray[np.bool_]:
        rng = np.random.default_rng([self.seed, block])
        density = np.minimum(rng.exponential(_MEAN_DENSITY, (DEALT, 1)), _MAX_DENSITY)
        drawn: npt.NDArray[np.bool_] = rng.random((DEALT, self.neurons), dtype=np.float32) < density
        return drawn
