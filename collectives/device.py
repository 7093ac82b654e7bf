"""An exchange for blocks on a GPU: only rows that travel leave it, through pinned memory of the host.

Everything is enqueued on the caller's current stream, which must be one and the same, or be ordered by the caller. The
host waits for events of that stream, never for the device, and only where rows must have come out of it before they are
sent: by then rows of the run before have been read, since the stream keeps their order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

import numpy as np

from sparsecomm.arrays import DeviceArray, address, as_device, current_stream, device_module, new_event
from sparsecomm.collectives.device_graphs import Graphs
from sparsecomm.collectives.device_source import add_source, copy_source, sum_source, take_source
from sparsecomm.collectives.exchange import Exchange
from sparsecomm.collectives.pending import Pending
from sparsecomm.collectives.proof import sent_slots
from sparsecomm.collectives.wire import Rows
from sparsecomm.kernels.cuda import compiled

BLOCK_THREADS: Final = 256
_MOST_BLOCKS: Final = 1 << 16
_UNITS: Final = (16, 8, 4, 2, 1)
_SOURCES: Final[dict[str, Callable[[Any], str]]] = {
    "copy_rows": copy_source,
    "add_rows": add_source,
    "take_rows": take_source,
    "sum_rows": sum_source,
}


class DeviceGather:
    """Ghost rows of a block X on a GPU.

    Args:
        exchange: whose rows lie in pinned memory; of depth 1.
        graphs: what kernels are enqueued by.

    Note: Collective over comm.
    """

    def __init__(self, exchange: Exchange, graphs: Graphs) -> None:
        module, plan = device_module(), exchange.plan
        self._exchange, self._packed, self._graphs = exchange, new_event(), graphs
        self._sent = as_device(sent_slots(plan).astype(np.int64))
        self._ghosts = module.empty((plan.num_ghost, exchange.width), exchange.dtype)
        self._given: Rows | None = None
        self._pending: Pending | None = None

    def pack(self, x: DeviceArray) -> None:
        """Enqueue the way of the rows that are sent, from `x` (num_own, width) to the host."""
        self._given = given = self._exchange.own_buffer()
        places = int(address(given)), int(x.data.ptr)
        self._graphs.run((self, "pack"), places, lambda: copy_rows(given, self._sent, x, self._sent))
        self._packed.record(current_stream())

    def start(self) -> list[Pending]:
        """Wait until the rows are out, send them, and return what must go on while others are waited for."""
        assert self._given is not None, "pack first"
        self._packed.synchronize()
        self._pending = self._exchange.start(self._given)
        return [self._pending]

    def wait(self, meanwhile: Sequence[Pending] = ()) -> DeviceArray:
        """Wait for the ghosts and enqueue their way to the GPU; return (num_ghost, width), valid until the next run."""
        assert self._pending is not None, "start first"
        bring(self._ghosts, self._pending.wait(meanwhile=meanwhile))
        return self._ghosts


class DeviceScatter:
    """Partial rows from a GPU to the owners of their rows, who add them up.

    Args:
        exchange: whose rows lie in pinned memory; of depth 1.
        graphs: what kernels are enqueued by.

    Note: Collective over comm.
    """

    def __init__(self, exchange: Exchange, graphs: Graphs) -> None:
        self._exchange, self._packed, self._graphs = exchange, new_event(), graphs
        self._pending: Pending | None = None
        self._given: Rows | None = None
        self._own: DeviceArray | None = None
        self._sums: DeviceArray | None = None

    def pack(self, partials: DeviceArray) -> None:
        """Enqueue the way of `partials` (num_ghost, width) to the host."""
        self._given = self._exchange.partials_buffer()
        fetch(partials, self._given)
        self._packed.record(current_stream())

    def start(self) -> list[Pending]:
        """Wait until the rows are out, send them, and return what must go on while others are waited for."""
        assert self._given is not None, "pack first"
        self._packed.synchronize()
        self._pending = self._exchange.start_reverse(self._given)
        return [self._pending]

    def add(self, y: DeviceArray) -> None:
        """Wait for the sums and enqueue their addition to `y` (num_own, width)."""
        assert self._pending is not None, "start first"
        own, rows = self._pending.wait_sums()
        if self._own is None or self._sums is None:
            self._own, self._sums = as_device(own), device_module().empty(rows.shape, rows.dtype)
        bring(sums := self._sums, rows)
        self._graphs.run((self, "add"), (int(y.data.ptr),), lambda: add_rows(y, self._own, sums))


def bring(target: DeviceArray, rows: Rows) -> None:
    """Enqueue a copy of pinned rows of the host to the GPU."""
    if target.size:
        target.set(rows, stream=current_stream())


def fetch(source: DeviceArray, rows: Rows) -> None:
    """Enqueue a copy of contiguous rows on the GPU to pinned rows of the host."""
    if source.size:
        source.get(stream=current_stream(), out=rows, blocking=False)


def copy_rows(
    target: DeviceArray | Rows,
    target_index: DeviceArray | None,
    source: DeviceArray | Rows,
    source_index: DeviceArray | None,
) -> None:
    """Enqueue `target[target_index] = source[source_index]`; either block may be pinned memory of the host.

    Args:
        target, source: (.., width) of one dtype, rows contiguous.
        target_index, source_index: (rows,) int64 on the GPU, None for all in order; no row of `target` twice.
    """
    index = source_index if source_index is not None else target_index
    num_rows, row_bytes = (len(source) if index is None else len(index)), source.shape[1] * source.dtype.itemsize
    total = num_rows * row_bytes
    if total == 0:
        return
    (to, to_stride), (of, of_stride) = _where(target), _where(source)
    sizes = _begin(target), _begin(source), to_stride, of_stride, row_bytes
    unit = unit_of(*sizes)
    row_kernel("copy_rows", unit)(
        blocks_for(total // unit), (BLOCK_THREADS,),
        (to, np.int64(to_stride // unit), _index(target_index), of, np.int64(of_stride // unit), _index(source_index),
         np.int64(num_rows), np.int32(row_bytes // unit)),
    )  # fmt: skip


def add_rows(target: DeviceArray, index: DeviceArray, rows: DeviceArray) -> None:
    """Enqueue `target[index] += rows`, `index` (rows,) int64 naming no row twice, `rows` contiguous."""
    if rows.size == 0:
        return
    to, stride = _where(target)
    row_kernel("add_rows", str(target.dtype))(
        blocks_for(rows.size), (BLOCK_THREADS,),
        (to, np.int64(stride // target.dtype.itemsize), index, rows, np.int64(rows.shape[0]), np.int32(rows.shape[1])),
    )  # fmt: skip


def unit_of(*sizes: int) -> int:
    """Return the widest unit, in bytes, that divides all of some addresses and sizes."""
    return next(unit for unit in _UNITS if all(size % unit == 0 for size in sizes))


@cache
def row_kernel(name: str, kind: Any) -> Any:
    """Return a kernel that moves rows, in units of `kind` bytes or of numbers of the dtype `kind`."""
    return compiled(_SOURCES[name](kind), name)


def blocks_for(work: int) -> tuple[int]:
    """Return how many blocks of threads do some work of one item a thread and turn."""
    return (min(-(-work // BLOCK_THREADS), _MOST_BLOCKS),)


def _where(block: DeviceArray | Rows) -> tuple[DeviceArray | np.uint64, int]:
    """Return what tells a kernel of a block, and bytes from row to row; an array, unlike its address, is kept alive."""
    return address(block) if isinstance(block, np.ndarray) else block, int(block.strides[0])


def _begin(block: DeviceArray | Rows) -> int:
    return int(address(block) if isinstance(block, np.ndarray) else block.data.ptr)


def _index(index: DeviceArray | None) -> DeviceArray | np.uint64:
    return np.uint64(0) if index is None else index
