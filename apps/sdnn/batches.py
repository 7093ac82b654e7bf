"""Activations of a rank's neurons for its images, in batches that fit a cache and travel together."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from sparsecomm.apps.sdnn.inputs import Pixels
from sparsecomm.typing import Bools, IntGlobal

Dense = npt.NDArray[np.float32]

# Widths are multiples of this many images, a few vectors of the processor.
_STEP: Final = 16


def width_for(count: int, most: int) -> int:
    """Return the width at which `count` images fill the fewest batches of at most `most`, with least room to spare."""
    batches = max(1, -(-count // most))
    each = -(-count // batches)
    return max(1, min(most, -(-each // _STEP) * _STEP))


def widths(most: int) -> list[int]:
    """Return all widths that `width_for` may choose, but for those of fewer images than a step."""
    return [*range(_STEP, most, _STEP), most]


class Batches:
    """Images side by side: image `ids[j]` is column `j % width` of block `j // width`; columns left over are zero.

    Args:
        ids: (num_images,) int64.
        num_rows: neurons of this rank.
        width: columns of a block.

    Attributes:
        blocks: (num_rows, width) float32 each.
    """

    def __init__(self, ids: IntGlobal, num_rows: int, width: int) -> None:
        self.ids, self.num_rows, self.width = ids, num_rows, width
        self.blocks = [self.empty() for _ in range(-(-ids.size // width))]

    def empty(self) -> Dense:
        return np.zeros((self.num_rows, self.width), dtype=np.float32)

    def fill(self, image: IntGlobal, row: IntGlobal, value: npt.NDArray[np.float32]) -> None:
        """Set the activation of `row[i]` for the image in column `image[i]`."""
        order = np.argsort(image, kind="stable")
        image, row, value = image[order], row[order], value[order]
        cuts = np.searchsorted(image, np.arange(len(self.blocks) + 1) * self.width)
        for block, begin, end in zip(self.blocks, cuts[:-1], cuts[1:], strict=True):
            block[row[begin:end], image[begin:end] % self.width] = value[begin:end]

    def select(self, keep: IntGlobal, width: int) -> Batches:
        """Return the images in columns `keep`, ascending, packed anew; takes the blocks of this one apart."""
        packed = Batches(self.ids[keep], self.num_rows, width)
        packed.blocks = []
        for begin in range(0, keep.size, width):
            packed.blocks.append(self._pack(keep[begin : begin + width], packed.empty()))
            done = int(keep[begin + width]) // self.width if begin + width < keep.size else 0
            self.blocks[:done] = [self.blocks[-1]] * done  # not read again: their memory can hold what comes
        return packed

    def _pack(self, columns: IntGlobal, out: Dense) -> Dense:
        blocks = np.arange(columns[0] // self.width, columns[-1] // self.width + 1)
        cuts = np.searchsorted(columns, np.append(blocks, blocks[-1] + 1) * self.width)
        for block, begin, end in zip(blocks, cuts[:-1], cuts[1:], strict=True):
            out[:, begin:end] = self.blocks[block][:, columns[begin:end] - block * self.width]
        return out

    def extend(self, ids: IntGlobal) -> None:
        """Append images without activations."""
        self.ids = np.concatenate([self.ids, ids])
        self.blocks += [self.empty() for _ in range(len(self.blocks), -(-self.ids.size // self.width))]

    def entries(self, columns: IntGlobal) -> Pixels:
        """Return the activations of the images in `columns`, as (index into `columns`, row, value)."""
        found = np.stack([self.blocks[j // self.width][:, j % self.width] for j in columns.tolist()])
        image, row = np.nonzero(found)
        return Pixels(image, row, found[image, row])


def alive_in(flags: list[Bools], count: int) -> Bools:
    """Return which of the first `count` columns are alive, given the flags of every block."""
    empty: list[Any] = [np.zeros(0, dtype=np.bool_)]
    return np.concatenate(empty + flags)[:count]
