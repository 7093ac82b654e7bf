"""One stage of an exchange on GPUs: how its rows get from the block of one rank into that of another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparsecomm.arrays import DeviceArray, as_device, current_stream, new_event
from sparsecomm.collectives.device import copy_rows
from sparsecomm.collectives.device_buffers import StageBuffers, device_rows
from sparsecomm.collectives.device_intake import Intake
from sparsecomm.collectives.device_near import Near
from sparsecomm.collectives.executed import Counter
from sparsecomm.collectives.schedule import Message, Schedule
from sparsecomm.collectives.transport.base import Channel, MessageBuffer, Transport
from sparsecomm.collectives.transport.nccl import Nccl
from sparsecomm.collectives.transport.waits import Wait, Waiting
from sparsecomm.errors import ExchangeError
from sparsecomm.plan import RankPlan


@dataclass(frozen=True, slots=True, eq=False)
class StageMessages:
    """What one rank sends and receives in one stage of a direction.

    Args:
        number: of the stage in the plan.
        level: of the stage.
        adds: whether rows are added to what is in their slots.
        sends, recvs: in canonical order; slots are [own rows that move | ghosts | staging].
    """

    number: int
    level: int
    adds: bool
    sends: tuple[Message, ...]
    recvs: tuple[Message, ...]

    @staticmethod
    def of(plan: RankPlan, schedule: Schedule, adds: bool) -> list[StageMessages]:
        """Return the stages in the order of the direction; `schedule` is that of the reverse direction."""
        made = []
        for number, stage in enumerate(plan.stages):
            out, into = (tuple(m for m in side if m.stage == number) for side in (schedule.sends, schedule.recvs))
            made.append(StageMessages(number, stage.level, adds, *((out, into) if adds else (into, out))))
        return made[::-1] if adds else made

    @property
    def peers(self) -> tuple[int, ...]:
        """The ranks that messages come from."""
        return tuple(message.peer for message in self.recvs)


class DeviceStage(ABC):
    """A stage with its buffers. One run of it is `pack`, `mark`, `send`, `arrive` and `unpack`, in this order.

    `pack` and `unpack` launch kernels and do nothing else, always the same ones on the same memory.
    """

    @abstractmethod
    def pack(self) -> None:
        """Enqueue what makes the rows that this rank sends ready; they are in their slots by then."""

    @abstractmethod
    def mark(self) -> None:
        """Record that they are."""

    @abstractmethod
    def send(self) -> None:
        """Send them, or say that they may be read."""

    @abstractmethod
    def arrive(self) -> None:
        """Wait for what comes, or let the stream wait."""

    @abstractmethod
    def unpack(self) -> None:
        """Enqueue the way of the rows that have come into their slots."""

    @abstractmethod
    def close(self) -> None:
        """Free its messages; nothing of the last run is under way on the GPU."""


class MessageStage(DeviceStage):
    """Through buffers that kernels write and read and the transport sends: pinned memory of the host, or the GPU's.

    The transport knows nothing of streams: the host waits for rows to be packed, and for nothing else on the GPU. By
    then those of the run before have been read, as the stream keeps the order, so that others may come in their place.
    """

    def __init__(
        self, block: DeviceArray, stage: StageMessages, buffers: StageBuffers, transport: Transport, counter: Counter
    ) -> None:
        self._block, self._stage, self._transport, self._counter = block, stage, transport, counter
        self._buffers, self._out = buffers, buffers.out
        self._slots, self._packed = _slots_of(stage.sends), new_event()
        rows = [np.arange(message.num_rows) for message in stage.recvs]
        self._intake = Intake(block, stage.recvs, buffers.places, rows, stage.adds) if rows else None
        self._expected = [message.data.nbytes for message in buffers.recvs]
        self._channel = transport.open(buffers.sends, buffers.recvs)

    def pack(self) -> None:
        if len(self._out):
            copy_rows(self._out, None, self._block, self._slots)

    def mark(self) -> None:
        self._packed.record(current_stream())

    def send(self) -> None:
        self._packed.synchronize()
        self._channel.start(tuple(range(len(self._stage.sends))))
        row_bytes = self._block.shape[1] * self._block.dtype.itemsize
        for message, pieces in zip(self._stage.sends, self._channel.pieces, strict=True):
            self._counter.sent(self._stage.level, message.num_rows, message.num_rows * row_bytes, pieces)

    def arrive(self) -> None:
        sizes = arrivals(self._channel, self._stage, self._transport)
        for message, size, expected in zip(self._stage.recvs, sizes, self._expected, strict=True):
            if size != expected:
                raise ExchangeError(
                    f"rank {self._transport.rank}, stage {self._stage.number}: {size} bytes came from rank "
                    f"{message.peer}, but the plan says {expected}"
                )
            self._counter.received(self._stage.level, message.num_rows, size)

    def unpack(self) -> None:
        if self._intake is not None:
            self._intake.enqueue()

    def close(self) -> None:
        self._channel.close()
        self._buffers.close()


class NcclStage(DeviceStage):
    """By NCCL: rows are packed on the GPU, and all messages of the stage go in one group on the current stream."""

    def __init__(self, block: DeviceArray, stage: StageMessages, nccl: Nccl, counter: Counter) -> None:
        self._block, self._stage, self._nccl, self._counter = block, stage, nccl, counter
        self._out, self._sends = device_rows(block, stage.sends)
        self._into, self._recvs = device_rows(block, stage.recvs)
        self._slots = _slots_of(stage.sends)
        places = [int(rows.data.ptr) for _, rows in self._recvs]
        rows = [np.arange(message.num_rows) for message in stage.recvs]
        self._intake = Intake(block, stage.recvs, places, rows, stage.adds) if places else None

    def pack(self) -> None:
        if len(self._out):
            copy_rows(self._out, None, self._block, self._slots)

    def mark(self) -> None:
        """Do nothing: messages are on the stream."""

    def send(self) -> None:
        self._nccl.swap(self._sends, self._recvs)
        row_bytes = self._block.shape[1] * self._block.dtype.itemsize
        for message in self._stage.sends:
            self._counter.sent(self._stage.level, message.num_rows, message.num_rows * row_bytes, 1)

    def arrive(self) -> None:
        row_bytes = self._block.shape[1] * self._block.dtype.itemsize
        for message in self._stage.recvs:
            self._counter.received(self._stage.level, message.num_rows, message.num_rows * row_bytes)

    def unpack(self) -> None:
        if self._intake is not None:
            self._intake.enqueue()

    def close(self) -> None:
        """Do nothing: buffers go with the stage."""


class IpcStage(DeviceStage):
    """By reading the blocks of peers where they lie; messages are empty and say that an event has been recorded.

    Note: Collective over comm.
    """

    def __init__(
        self, near: Near, turn: int, block: DeviceArray, stage: StageMessages, transport: Transport, counter: Counter
    ) -> None:
        self._near, self._turn, self._stage, self._transport, self._counter = near, turn, stage, transport, counter
        self._row_bytes = block.shape[1] * block.dtype.itemsize
        rows = near.swap_slots(stage.sends, stage.recvs)
        places = [near.address(message.peer) for message in stage.recvs]
        self._intake = Intake(block, stage.recvs, places, rows, stage.adds) if places else None
        self._channel = transport.open(*(signals(side, stage.number) for side in (stage.sends, stage.recvs)))

    def pack(self) -> None:
        """Do nothing: rows are read where they are."""

    def mark(self) -> None:
        self._near.record(self._turn)

    def send(self) -> None:
        self._channel.start(tuple(range(len(self._stage.sends))))
        for message in self._stage.sends:
            self._counter.sent(self._stage.level, message.num_rows, 0, 1)

    def arrive(self) -> None:
        arrivals(self._channel, self._stage, self._transport)
        for message in self._stage.recvs:
            self._near.wait_for(message.peer, self._turn)
            self._counter.received(self._stage.level, message.num_rows, 0)
            self._counter.loaded[self._stage.level] += message.num_rows * self._row_bytes

    def unpack(self) -> None:
        if self._intake is not None:
            self._intake.enqueue()

    def close(self) -> None:
        self._channel.close()


def arrivals(channel: Channel, stage: StageMessages, transport: Transport) -> list[int]:
    """Block until all of a stage has come and what was sent is out; return the bytes of each receive."""
    sizes, left = [0] * len(stage.recvs), len(stage.recvs)

    def wait() -> Wait:
        return Wait(transport.watch, lambda: Waiting(f"stage {stage.number} of a block on GPUs", stage.peers))

    while left:
        for index, num_bytes in channel.wait(wait(), all_at_once=True):
            sizes[index], left = num_bytes, left - 1
    channel.finish(wait())
    return sizes


def signals(messages: Sequence[Message], number: int) -> list[MessageBuffer]:
    """Return empty messages to or from the peers of `messages`."""
    return [MessageBuffer(message.peer, number, np.empty(0, dtype=np.uint8)) for message in messages]


def _slots_of(messages: Sequence[Message]) -> DeviceArray:
    return as_device(np.concatenate([np.empty(0, dtype=np.int64), *(message.slots for message in messages)]))
