"""An exchange whose slots lie on GPUs, each level by the transport that suits it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from sparsecomm.arrays import DeviceArray, as_device, current_stream, device_module, new_event
from sparsecomm.collectives.device import add_rows, copy_rows
from sparsecomm.collectives.device_buffers import StageBuffers
from sparsecomm.collectives.device_graphs import Graphs
from sparsecomm.collectives.device_links import DeviceLinks
from sparsecomm.collectives.device_near import Near
from sparsecomm.collectives.device_stage import DeviceStage, IpcStage, MessageStage, NcclStage, StageMessages
from sparsecomm.collectives.executed import Counter, Executed
from sparsecomm.collectives.pending import Pending
from sparsecomm.collectives.schedule import Schedule
from sparsecomm.collectives.transport.base import Transport, agreed
from sparsecomm.plan import RankPlan
from sparsecomm.typing import IntRank


class DeviceLevels:
    """One direction of a plan, run stage by stage on the caller's current stream.

    The slots are [own rows that move | ghosts | staging], one block of GPU memory. The host waits for messages that
    say that something may be done, and for rows to leave the GPU where they go through it; never for the device.

    Args:
        plan: of this rank.
        transport: of the host; duplicated.
        links: what the levels go by.
        names: for every level `ipc`, `nccl`, `mpi` or `pinned`.
        width, dtype: of the rows.
        adds: whether this is the reverse direction.
        graphs: what kernels are enqueued by.

    Note: Collective over comm.
    """

    def __init__(
        self,
        plan: RankPlan,
        transport: Transport,
        links: DeviceLinks,
        names: Sequence[str],
        width: int,
        dtype: np.dtype,
        adds: bool,
        graphs: Graphs,
    ) -> None:
        self._transport, self._counter = transport.duplicate(), Counter(len(names))
        self._graphs, self._over = graphs, new_event()
        schedule = Schedule.reverse(plan)
        messages = StageMessages.of(plan, schedule, adds)
        self._own = as_device(schedule.touched)
        self._num_own, self._num_ghost = schedule.touched.size, plan.num_ghost
        shape, in_place = (schedule.num_slots, width), [stage for stage in messages if names[stage.level] == "ipc"]
        self._near = self._share(shape, dtype, in_place, len(messages)) if in_place else None
        self._block = self._near.block(shape, dtype) if self._near else device_module().empty(shape, dtype)
        self._stages = [self._stage(stage, names[stage.level], in_place, links) for stage in messages]

    @property
    def own(self) -> DeviceArray:
        """Numbers of the own rows that move, (n,) int64 ascending."""
        return self._own

    @property
    def own_rows(self) -> DeviceArray:
        """Their place in the block."""
        return self._block[: self._num_own]

    @property
    def ghosts(self) -> DeviceArray:
        """The place of the ghosts in the block."""
        return self._block[self._num_own : self._num_own + self._num_ghost]

    @property
    def executed(self) -> Executed:
        """What this rank has sent, received and read since this was made."""
        return self._counter.executed()

    def fill(self, place: DeviceArray, rows: DeviceArray, index: DeviceArray | None) -> None:
        """Enqueue a copy of `rows[index]` to `place`, what is given to a run, once nobody reads the block any more."""
        if self._near:
            self._near.begin()

        def enqueue() -> None:
            copy_rows(place, None, rows, index)
            self._stages[0].pack()

        self._graphs.run((self, "fill"), (int(rows.data.ptr),), enqueue)
        self._counter.copied[0] += place.size * place.dtype.itemsize
        self._stages[0].mark()

    def start(self) -> None:
        """Send the first stage."""
        self._stages[0].send()

    def finish(self) -> None:
        """Go through all stages; what is enqueued from now on finds the result in the block."""
        self._stages[0].arrive()
        for before, stage in pairwise(self._stages):
            self._pass_on(before, stage)
            stage.mark()
            stage.send()
            stage.arrive()
        self._graphs.run((self, "last"), (), self._stages[-1].unpack)
        if self._near:
            self._near.end()
        self._over.record(current_stream())

    def add_to(self, y: DeviceArray) -> None:
        """Enqueue the addition of the own rows that moved to `y`."""
        self._graphs.run((self, "add"), (int(y.data.ptr),), lambda: add_rows(y, self._own, self.own_rows))

    def close(self) -> None:
        """Free messages and memory.

        Note: Collective over comm.
        """
        self._over.synchronize()  # what is freed must not be read any more
        for stage in self._stages:
            stage.close()
        if self._near:
            self._near.close()
        self._transport.close()

    def _pass_on(self, before: DeviceStage, stage: DeviceStage) -> None:
        def enqueue() -> None:
            before.unpack()
            stage.pack()

        self._graphs.run((self, stage), (), enqueue)

    def _share(self, shape: tuple[int, int], dtype: np.dtype, in_place: Sequence[StageMessages], number: int) -> Near:
        sources, readers = (_peers(in_place, side) for side in ("recvs", "sends"))
        num_bytes = shape[0] * shape[1] * dtype.itemsize
        return Near(num_bytes, len(in_place), sources, readers, self._transport, number)

    def _stage(
        self, stage: StageMessages, name: str, in_place: Sequence[StageMessages], links: DeviceLinks
    ) -> DeviceStage:
        if name == "ipc" and self._near:
            return IpcStage(self._near, in_place.index(stage), self._block, stage, self._transport, self._counter)
        if name == "nccl":
            return NcclStage(self._block, stage, links.nccl(), self._counter)
        make = StageBuffers.on_gpu if name == "mpi" else StageBuffers.pinned
        buffers = agreed(self._transport, lambda: make(self._block, stage.sends, stage.recvs))
        return MessageStage(self._block, stage, buffers, self._transport, self._counter)


class LevelGather:
    """Ghost rows of a block X on a GPU, by the transports of the levels.

    Note: Collective over comm.
    """

    def __init__(self, levels: DeviceLevels) -> None:
        self._levels = levels

    def pack(self, x: DeviceArray) -> None:
        """Enqueue the way of the rows that are sent from `x` (num_own, width)."""
        self._levels.fill(self._levels.own_rows, x, self._levels.own)

    def start(self) -> list[Pending]:
        """Send them, and return what must go on while others are waited for: nothing."""
        self._levels.start()
        return []

    def wait(self, meanwhile: Sequence[Pending] = ()) -> DeviceArray:
        """Wait for what the ghosts need and enqueue it; return (num_ghost, width), valid until the next run."""
        for pending in meanwhile:
            pending.progress()
        self._levels.finish()
        return self._levels.ghosts


class LevelScatter:
    """Partial rows from a GPU to the owners of their rows, who add them up, by the transports of the levels.

    Note: Collective over comm.
    """

    def __init__(self, levels: DeviceLevels) -> None:
        self._levels = levels

    def pack(self, partials: DeviceArray) -> None:
        """Enqueue the way of `partials` (num_ghost, width)."""
        self._levels.fill(self._levels.ghosts, partials, None)

    def start(self) -> list[Pending]:
        """Send them, and return what must go on while others are waited for: nothing."""
        self._levels.start()
        return []

    def add(self, y: DeviceArray) -> None:
        """Wait for what the sums need and enqueue their addition to `y` (num_own, width)."""
        self._levels.finish()
        self._levels.add_to(y)


def _peers(stages: Sequence[StageMessages], side: str) -> IntRank:
    return np.unique(np.array([m.peer for stage in stages for m in getattr(stage, side)], dtype=np.int32))
