"""Buffers that messages of rows on a GPU are sent from and received into: pinned on the host, or on the GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np

from sparsecomm.arrays import DeviceArray, address, device_module, pinned
from sparsecomm.collectives.schedule import Message
from sparsecomm.collectives.transport.base import MessageBuffer
from sparsecomm.collectives.transport.ipc import Reserved

_LINE_BYTES = 256  # what the driver itself begins memory at


@dataclass(frozen=True, slots=True, eq=False)
class StageBuffers:
    """The buffers of one stage.

    Args:
        out: (rows sent, width) for all sends, one after the other.
        sends, recvs: the messages.
        places: for each receive the address of its rows, which the GPU can read.
        memory: what they lie in, if it is the GPU's.
    """

    out: DeviceArray | np.ndarray
    sends: list[MessageBuffer]
    recvs: list[MessageBuffer]
    places: list[int]
    memory: Reserved | None = None

    @staticmethod
    def pinned(block: DeviceArray, sends: Sequence[Message], recvs: Sequence[Message]) -> StageBuffers:
        """Return buffers in pinned memory of the host, for rows like those of `block`."""
        (out, sent), (_, received) = (_host_rows(block, messages) for messages in (sends, recvs))
        return StageBuffers(out, sent, received, [int(address(message.data)) for message in received])

    @staticmethod
    def on_gpu(block: DeviceArray, sends: Sequence[Message], recvs: Sequence[Message]) -> StageBuffers:
        """Return buffers on the current GPU, for rows like those of `block`.

        They are of no pool: an MPI that registers memory with a network, or opens it in another process, takes not all
        that pools are made of.
        """
        width, dtype = block.shape[1], np.dtype(str(block.dtype))
        row_bytes, bounds = width * dtype.itemsize, bounds_of(recvs)
        num_out, begin = bounds_of(sends)[-1], -(-bounds_of(sends)[-1] * row_bytes // _LINE_BYTES) * _LINE_BYTES
        memory = Reserved(begin + bounds[-1] * row_bytes)
        out, into = memory.array((num_out, width), dtype), memory.array((bounds[-1], width), dtype, begin)
        places = [memory.address + begin + bound * row_bytes for bound in bounds[:-1]]
        return StageBuffers(out, _buffers(out, sends), _buffers(into, recvs), places, memory)

    def close(self) -> None:
        """Free memory of the GPU, which nothing uses any more."""
        if self.memory is not None:
            self.memory.close()


def device_rows(block: DeviceArray, messages: Sequence[Message]) -> tuple[DeviceArray, list[tuple[int, DeviceArray]]]:
    """Return rows on the GPU for all messages, one after the other, and those of each with its peer."""
    rows = device_module().empty((bounds_of(messages)[-1], block.shape[1]), block.dtype)
    return rows, [(buffer.peer, buffer.data) for buffer in _buffers(rows, messages)]


def bounds_of(messages: Sequence[Message]) -> list[int]:
    """Return where the rows of each message begin and those of the last end."""
    return [0, *accumulate(message.num_rows for message in messages)]


def _host_rows(block: DeviceArray, messages: Sequence[Message]) -> tuple[np.ndarray, list[MessageBuffer]]:
    num_rows, width, dtype = bounds_of(messages)[-1], block.shape[1], np.dtype(str(block.dtype))
    rows = pinned(num_rows * width * dtype.itemsize).view(dtype).reshape(num_rows, width)
    return rows, _buffers(rows, messages)


def _buffers(rows: DeviceArray | np.ndarray, messages: Sequence[Message]) -> list[MessageBuffer]:
    bounds = pairwise(bounds_of(messages))
    return [MessageBuffer(m.peer, m.stage, rows[begin:end]) for m, (begin, end) in zip(messages, bounds, strict=True)]
