"""Rows that have come, or lie where they can be read, put into the slots of a block on a GPU in one launch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparsecomm.arrays import DeviceArray, as_device
from sparsecomm.collectives.device import BLOCK_THREADS, blocks_for, row_kernel, unit_of
from sparsecomm.collectives.schedule import Message
from sparsecomm.table import run_starts
from sparsecomm.typing import IntGlobal


class Intake:
    """Takes in the messages of one stage, copied forwards and added in reverse.

    Args:
        block: (num_slots, width), contiguous.
        messages: that come, in canonical order; at least one.
        sources: for each message the address of rows of the block's width and dtype that the current GPU can read.
        rows: for each message which of these rows it is.
        adds: whether rows are added, in the order of the messages, to what is in a slot.
    """

    def __init__(
        self,
        block: DeviceArray,
        messages: Sequence[Message],
        sources: Sequence[int],
        rows: Sequence[IntGlobal],
        adds: bool,
    ) -> None:
        self._block, self._adds = block, adds
        slots = np.concatenate([message.slots for message in messages])
        source = np.repeat(np.arange(len(messages), dtype=np.int32), [message.num_rows for message in messages])
        row = np.concatenate(rows).astype(np.int64)
        self._sources = as_device(np.array(sources, dtype=np.uint64))
        self._unit = unit_of(block.shape[1] * block.dtype.itemsize, int(block.data.ptr), *sources)
        if not adds:
            self._target, self._parts = as_device(slots), (as_device(source), as_device(row))
            return
        order = np.argsort(slots, kind="stable")
        starts = np.flatnonzero(run_starts([slots[order]]))
        fresh = np.concatenate([message.fresh for message in messages])
        self._target = as_device(slots[order][starts])
        self._keep = as_device((~fresh[order][starts]).astype(np.int32))
        self._indptr = as_device(np.append(starts, slots.size).astype(np.int64))
        self._parts = as_device(source[order]), as_device(row[order])

    def enqueue(self) -> None:
        """Enqueue it on the current stream."""
        width = self._block.shape[1]
        if self._adds:
            row_kernel("sum_rows", str(self._block.dtype))(
                blocks_for(len(self._target) * width), (BLOCK_THREADS,),
                (self._block, self._target, self._keep, self._indptr, self._sources, *self._parts,
                 np.int64(len(self._target)), np.int32(width)),
            )  # fmt: skip
            return
        units = width * self._block.dtype.itemsize // self._unit
        row_kernel("take_rows", self._unit)(
            blocks_for(len(self._target) * units), (BLOCK_THREADS,),
            (self._block, self._target, self._sources, *self._parts, np.int64(len(self._target)), np.int32(units)),
        )  # fmt: skip
