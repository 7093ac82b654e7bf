"""CUDA IPC and NCCL on the CPU, for ranks that are threads: each thread is what a process is to the driver.

Handles are refused where they were made, must be closed before memory is freed, and are opened once. Messages of NCCL
pass when both ranks have enqueued them; a group that never finds its other half ends in an error.
"""

from __future__ import annotations

import ctypes
import threading
from collections import defaultdict, deque
from types import SimpleNamespace
from typing import Any, Final

import numpy as np

from tests.cpu_streams import Clock, Event, HazardError, Shadow, Stream, event_of, patiently, stream_of, world

_HANDLE_BYTES: Final = 64


class Memory:
    """What has been allocated for others to open, and who has it open."""

    def __init__(self) -> None:
        self.refuses = ""  # what the driver says to every open, if it does
        self._arrays: dict[int, Any] = {}
        self._shadows: dict[int, Shadow] = {}
        self._makers: dict[int, int] = {}
        self._open: set[tuple[int, int]] = set()

    def malloc(self, num_bytes: int) -> int:
        array = np.full(num_bytes, 77, np.uint8)
        begin = int(array.ctypes.data)
        with world:
            self._arrays[begin], self._shadows[begin] = array, Shadow(begin, num_bytes)
            self._makers[begin] = threading.get_ident()
        return begin

    def free(self, begin: int) -> None:
        with world:
            if any(address == begin for address, _ in self._open):
                raise HazardError("memory is freed that others have open")
            del self._arrays[begin], self._shadows[begin]

    def get_handle(self, begin: int) -> bytes:
        assert begin in self._arrays, "a handle is of a whole allocation"
        return begin.to_bytes(_HANDLE_BYTES, "little")

    def open_handle(self, handle: bytes, flags: int = 0) -> int:
        begin, key = int.from_bytes(handle, "little"), (int.from_bytes(handle, "little"), threading.get_ident())
        with world:
            if self.refuses or self._makers[begin] == key[1]:
                raise RuntimeError(self.refuses or "cudaErrorDeviceUninitialized: invalid device context")
            assert key not in self._open, "memory is opened twice"
            self._open.add(key)
        return begin

    def close_handle(self, begin: int) -> None:
        with world:
            self._open.remove((begin, threading.get_ident()))

    def forget(self) -> None:
        """Free and close everything: a rank failed."""
        self._arrays, self._open = {}, set()

    @property
    def left(self) -> int:
        """How much has not been freed or closed."""
        return len(self._arrays) + len(self._open)

    def use(self, rows: Any, row_bytes: int, writes: bool, stream: int, clock: Clock) -> None:
        """Note that rows, given by their addresses, are used."""
        for shadow in list(self._shadows.values()):
            here = rows[(rows >= shadow.begin) & (rows < shadow.end)] - shadow.begin
            if here.size:
                shadow.use((here[:, None] + np.arange(row_bytes)).ravel(), writes, stream, clock)


class Nccl:
    """What stands for the module `cupy.cuda.nccl`."""

    available = True
    NCCL_UINT8 = 1

    def __init__(self) -> None:
        self._mail: dict[tuple[Any, int, int], deque[tuple[Any, Clock]]] = defaultdict(deque)
        self._ahead: dict[tuple[Any, int], deque[Stream]] = defaultdict(deque)  # streams of groups that have not begun
        self._ids = 0
        self._groups = threading.local()

    def get_version(self) -> int:
        return 22000

    def get_unique_id(self) -> tuple[int, ...]:
        self._ids += 1
        return (self._ids,) * 128

    def NcclCommunicator(self, num_ranks: int, token: tuple[int, ...], rank: int) -> Communicator:
        assert len(token) == 128
        assert 0 <= rank < num_ranks
        return Communicator(self, token, rank)

    def groupStart(self) -> None:
        self._groups.calls = []

    def groupEnd(self) -> None:
        calls, self._groups.calls = self._groups.calls, None
        communicator, stream = calls[0][0], stream_of(calls[0][-1])
        assert all(call[0] is communicator and call[-1] == stream.ptr for call in calls)
        with world:
            self._ahead[communicator.token, communicator.rank].append(stream)
            clock = stream.push(lambda: self._pass(communicator, calls, clock))

    def call(self, *call: Any) -> None:
        assert getattr(self._groups, "calls", None) is not None, "a message outside a group"
        self._groups.calls.append(call)

    def _pass(self, communicator: Communicator, calls: list[Any], clock: Clock) -> None:
        """Run a group: what is sent waits for nobody here, so that groups need not all run at once.

        Of a rank that something must come from, no more is done than its next group: what follows may wait for this.
        """
        token, rank = communicator.token, communicator.rank
        self._ahead[token, rank].popleft()
        for _, kind, begin, size, peer, _ in calls:
            if kind == "send":
                self._mail[token, rank, peer].append((_bytes_at(begin, size).copy(), clock))
        world.notify_all()
        for _, kind, begin, size, peer, _ in calls:
            if kind == "recv":
                box = self._mail[token, peer, rank]
                while not box:
                    ahead = self._ahead[token, peer]
                    if not (ahead and ahead[0].step()):
                        patiently()
                rows, _ = box.popleft()
                assert rows.size == size, f"{rows.size} bytes come where {size} are expected"
                _bytes_at(begin, size)[:] = rows


class Communicator:
    def __init__(self, nccl: Nccl, token: Any, rank: int) -> None:
        self._nccl, self.token, self.rank = nccl, token, rank

    def send(self, begin: int, size: int, kind: int, peer: int, stream: int) -> None:
        self._nccl.call(self, "send", begin, size, peer, stream)

    def recv(self, begin: int, size: int, kind: int, peer: int, stream: int) -> None:
        self._nccl.call(self, "recv", begin, size, peer, stream)

    def destroy(self) -> None:
        self._nccl = None  # type: ignore[assignment]


def runtime(memory: Memory, stream_wait_event: Any) -> SimpleNamespace:
    """Return what stands for `cupy.cuda.runtime`."""
    return SimpleNamespace(
        getDeviceCount=lambda: 2,
        deviceGetPCIBusId=lambda device: f"0000:0{device}:{threading.get_ident()}",
        malloc=memory.malloc,
        free=memory.free,
        ipcGetMemHandle=memory.get_handle,
        ipcOpenMemHandle=memory.open_handle,
        ipcCloseMemHandle=memory.close_handle,
        ipcGetEventHandle=_event_handle,
        ipcOpenEventHandle=lambda handle: int.from_bytes(handle, "little"),
        eventDestroy=lambda event: None,
        streamWaitEvent=stream_wait_event,
    )


def _event_handle(event: int) -> bytes:
    found: Event = event_of(event)
    assert found.interprocess, "an event for other processes must be made so"
    return event.to_bytes(_HANDLE_BYTES, "little")


def _bytes_at(begin: int, size: int) -> Any:
    return np.frombuffer((ctypes.c_uint8 * size).from_address(begin), dtype=np.uint8)
