"""The format of Tiled SpMM: blocks of rows, their columns in stages, padded rows of warps with 16-bit indices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from sparsecomm.errors import InputError
from sparsecomm.typing import IntGlobal

WARP: Final = 32


@dataclass(frozen=True, slots=True)
class Staged:
    """A matrix whose rows, in blocks, share what they read: each block stages its columns part by part.

    Stage s of the whole matrix brings columns `map[map_start[s] : map_start[s + 1]]` to the slots 0, 1, ... of fast
    memory. Part p = (stage, warp of the block) holds `warp_start[p] : warp_start[p + 1]` padded rows, each with one
    nonzero of every lane: `index` is its slot and `value` its value; a lane with nothing to add has value 0.

    Args:
        shape: rows and columns.
        block_rows: rows of a block, a multiple of 32.
        stage_columns: slots of fast memory, at most 65,536.
        block_start: (blocks + 1,) int64, the first stage of every block.
        map_start: (stages + 1,) int64.
        map: (footprint of all blocks,) int32 columns.
        warp_start: (stages x block_rows / 32 + 1,) int64, in padded rows.
        index: (padded rows, 32) uint16.
        value: (padded rows, 32).
        nnz: nonzeros without padding.

    Source: Hidayetoglu et al., At-Scale Sparse Deep Neural Network Inference With Efficient GPU Implementation, 2020.
    """

    shape: tuple[int, int]
    block_rows: int
    stage_columns: int
    block_start: IntGlobal
    map_start: IntGlobal
    map: npt.NDArray[np.int32]
    warp_start: IntGlobal
    index: npt.NDArray[np.uint16]
    value: npt.NDArray[Any]
    nnz: int

    @staticmethod
    def of(matrix: csr_array[Any], block_rows: int = 256, stage_columns: int = 512) -> Staged:
        """Build the format of a matrix.

        Raises:
            InputError: rows of a block that no warps make up, or slots that 16 bits do not number.
        """
        if block_rows < WARP or block_rows % WARP:
            raise InputError(f"a block of {block_rows} rows is no whole number of warps; give a multiple of {WARP}")
        if not 1 <= stage_columns <= 1 << 16:
            raise InputError(f"{stage_columns} columns of a stage are not in 1 .. 65536, what 16-bit indices reach")
        matrix = matrix if matrix.has_sorted_indices else matrix.sorted_indices()
        row = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr))
        block = row // block_rows
        num_blocks = -(-matrix.shape[0] // block_rows)
        place, footprint, columns = _footprints(matrix, num_blocks, block_rows)
        num_stages = -(-footprint // stage_columns)
        block_start = _starts(num_stages)
        stage = block_start[block] + place // stage_columns
        lane_row = stage * block_rows + row % block_rows  # one of the rows of a block, within a stage
        lengths = np.bincount(lane_row, minlength=int(block_start[-1]) * block_rows)
        warp_start = _starts(lengths.reshape(-1, WARP).max(axis=1, initial=0))
        at = warp_start[lane_row // WARP] + _ranks(lane_row)
        index = np.zeros((int(warp_start[-1]), WARP), np.uint16)
        value = np.zeros(index.shape, matrix.dtype)
        index[at, lane_row % WARP] = place % stage_columns
        value[at, lane_row % WARP] = matrix.data
        return Staged(
            (matrix.shape[0], matrix.shape[1]), block_rows, stage_columns, block_start,
            _map_starts(footprint, num_stages, stage_columns), columns, warp_start, index, value, int(matrix.nnz),
        )  # fmt: skip

    @property
    def num_blocks(self) -> int:
        return self.block_start.size - 1

    @property
    def mean_footprint(self) -> float:
        """Distinct columns of a block."""
        return self.map.size / self.num_blocks

    @property
    def mean_stages(self) -> float:
        """Stages of a block."""
        return int(self.block_start[-1]) / self.num_blocks

    @property
    def padding(self) -> float:
        """Nonzeros with padding over nonzeros without."""
        return self.index.size / self.nnz if self.nnz else 1.0

    def to_csr(self) -> csr_array[Any]:
        """Return the matrix that the format holds; entries of value 0 are dropped as padding is."""
        warps = self.block_rows // WARP
        part = np.repeat(np.arange(self.warp_start.size - 1), np.diff(self.warp_start))
        stage = part // warps
        block = np.searchsorted(self.block_start, stage, side="right") - 1
        first = block * self.block_rows + part % warps * WARP
        row = first[:, None] + np.arange(WARP)
        column = self.map[np.minimum(self.map_start[stage][:, None] + self.index, self.map.size - 1)]
        held = self.value != 0
        return csr_array((self.value[held], (row[held], column[held])), shape=self.shape)


def _footprints(
    matrix: csr_array[Any], num_blocks: int, block_rows: int
) -> tuple[IntGlobal, IntGlobal, npt.NDArray[np.int32]]:
    """Return every nonzero's place among the columns of its block, their number per block, and all of them."""
    # scipy turns a matrix by counting, in time linear in its nonzeros: twice turned, every block is in column order.
    starts = matrix.indptr[np.minimum(np.arange(num_blocks + 1) * block_rows, matrix.shape[0])]
    blocks = csr_array((np.arange(matrix.nnz), matrix.indices, starts), shape=(num_blocks, matrix.shape[1]))
    ordered = blocks.tocsc().tocsr()
    new = np.ones(matrix.nnz, dtype=bool)
    new[1:] = ordered.indices[1:] != ordered.indices[:-1]
    new[starts[:-1][np.diff(starts) > 0]] = True
    footprint = np.bincount(np.repeat(np.arange(num_blocks), np.diff(starts))[new], minlength=num_blocks)
    place = np.empty(matrix.nnz, dtype=np.int64)
    place[ordered.data] = np.cumsum(new) - 1 - np.repeat(_starts(footprint)[:-1], np.diff(starts))
    return place, footprint, ordered.indices[new].astype(np.int32)


def _ranks(group: IntGlobal) -> IntGlobal:
    """Return the place of every element among its equals, which lie side by side."""
    places = np.arange(group.size)
    first = np.ones(group.size, dtype=bool)
    first[1:] = group[1:] != group[:-1]
    return places - np.maximum.accumulate(np.where(first, places, 0))


def _map_starts(footprint: IntGlobal, num_stages: IntGlobal, stage_columns: int) -> IntGlobal:
    """Return where the columns of every stage begin; all stages of a block are full but the last."""
    sizes = np.full(int(num_stages.sum()), stage_columns, dtype=np.int64)
    last = np.cumsum(num_stages)[num_stages > 0] - 1
    sizes[last] = (footprint - (num_stages - 1) * stage_columns)[num_stages > 0]
    return _starts(sizes)


def _starts(sizes: npt.NDArray[Any]) -> IntGlobal:
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
