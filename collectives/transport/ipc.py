"""Memory of a GPU that other processes of the node read in place, and events that they wait for (CUDA IPC)."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

from sparsecomm.arrays import DeviceArray, array_at, current_stream, device_module, device_runtime, new_event
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.table import Table
from sparsecomm.typing import IntGlobal, IntRank

# A handle names the whole block that the driver keeps the memory in. Smaller allocations share theirs with others.
_BLOCK_BYTES: Final = 2 << 20
_HANDLE_WORDS: Final = 8  # 64 bytes
_LAZY_PEER_ACCESS: Final = 1


class Reserved:
    """Memory on the current GPU that comes from the driver and from no pool, so that other processes, and networks, can
    be given it.

    Args:
        num_bytes: of the memory.

    Raises:
        RuntimeError: the driver gives no such memory.
    """

    def __init__(self, num_bytes: int) -> None:
        self.num_bytes = max(1, -(-num_bytes // _BLOCK_BYTES)) * _BLOCK_BYTES
        self.address = int(device_runtime().malloc(self.num_bytes))

    def array(self, shape: tuple[int, ...], dtype: npt.DTypeLike, begin: int = 0) -> DeviceArray:
        """Return an array that lies `begin` bytes into the memory, valid until `close`."""
        return array_at(self.address + begin, self.num_bytes - begin, shape, dtype, self)

    def close(self) -> None:
        """Free the memory, once nobody uses it any more; a second call does nothing."""
        if self.address:
            device_runtime().free(self.address)
            self.address = 0


class Exported(Reserved):
    """Memory that others may open, with events that this rank records. All others close it before `close`.

    Args:
        num_bytes: of the memory.
        num_events: how many.

    Raises:
        RuntimeError: the driver gives no such memory or events.
    """

    def __init__(self, num_bytes: int, num_events: int) -> None:
        self.events = [new_event(interprocess=True) for _ in range(num_events)]
        super().__init__(num_bytes)

    def offer(self) -> IntGlobal:
        """Return what others need to open this, in words of 64 bits, equally many for equally many events.

        Raises:
            RuntimeError: the driver gives no handles.
        """
        runtime, events = device_runtime(), [int(event.ptr) for event in self.events]
        handles = [runtime.ipcGetMemHandle(self.address), *(runtime.ipcGetEventHandle(event) for event in events)]
        here = [int(device_module().cuda.Device().id), self.address, *events]
        words = np.frombuffer(process_token() + b"".join(bytes(handle) for handle in handles), dtype=np.int64)
        return np.concatenate([np.array(here, dtype=np.uint64).view(np.int64), words])


class Opened:
    """What another rank exports, as this one sees it.

    The driver refuses handles in the process that they are from: threads use its addresses, if they use its GPU.

    Args:
        offer: of the other rank, with the token of its process.

    Raises:
        RuntimeError: it cannot be opened here.
    """

    def __init__(self, offer: IntGlobal) -> None:
        num_events = (offer.size - 4 - _HANDLE_WORDS) // (_HANDLE_WORDS + 1)
        here, there = offer[: 2 + num_events], offer[2 + num_events :]
        self.address, self.events = int(here[1:2].view(np.uint64)[0]), here[2:].view(np.uint64).tolist()
        self._stack = ExitStack()
        if there[:2].tobytes() != process_token():
            self._open([handle.tobytes() for handle in there[2:].reshape(-1, _HANDLE_WORDS)])
        elif here[0] != device_module().cuda.Device().id:
            raise RuntimeError("threads of one process use different GPUs")

    def _open(self, handles: Sequence[bytes]) -> None:
        runtime = device_runtime()
        with ExitStack() as stack:
            self.address = int(runtime.ipcOpenMemHandle(handles[0], _LAZY_PEER_ACCESS))
            stack.callback(runtime.ipcCloseMemHandle, self.address)
            self.events = []
            for handle in handles[1:]:
                self.events.append(int(runtime.ipcOpenEventHandle(handle)))
                stack.callback(runtime.eventDestroy, self.events[-1])
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Close it; a second call does nothing."""
        self._stack.close()


def wait_for(event: int) -> None:
    """Let the current stream wait for the last record of an event of another rank, which has been made."""
    device_runtime().streamWaitEvent(int(current_stream().ptr), event)


def swap(offer: IntGlobal, peers: IntRank, transport: Transport) -> dict[int, IntGlobal]:
    """Return what each of `peers` offers; all are given `offer`, as long on every rank, and give theirs.

    Note: Collective over comm.
    """
    to_rank = np.repeat(peers.astype(np.int32), offer.size)
    sender = np.full(to_rank.size, transport.rank, dtype=np.int32)
    table = Table(sender, {"from": sender.astype(np.int64), "word": np.tile(offer, peers.size)})
    found = transport.route(table, to_rank)
    words, senders = found["word"].reshape(-1, offer.size), found["from"].reshape(-1, offer.size)[:, 0]
    return dict(zip(senders.tolist(), words, strict=True))


def refusal(transport: Transport, read: Callable[[int], int]) -> str:
    """Return why ranks that share memory cannot read that of each other's GPUs; empty where all of them can.

    Tried with a block and an event of every rank, since a driver says nothing of containers, MIG or hidden GPUs, and
    virtual machines have been seen in which blocks open and other bytes are read.

    Args:
        transport: over the ranks.
        read: gives the first number of a block of one int64, given its address, by a kernel of the current GPU.

    Note: Collective over comm.
    """
    ranks = transport.neighbours()
    peers = ranks[ranks != transport.rank]
    with ExitStack() as stack:
        offer, why = np.zeros(5 + 2 * _HANDLE_WORDS, dtype=np.int64), ""
        try:
            mine = Exported(1, 1)
            stack.callback(mine.close)
            mine.array((1, 1), np.int64).set(np.array([[_greeting(transport.rank)]]), stream=current_stream())
            current_stream().synchronize()
            offer = mine.offer()
        except RuntimeError as err:
            why = str(err) or repr(err)
        offers = swap(offer, peers, transport)
        why = why or _cannot_read(offers, read)
        transport.barrier()  # nothing is freed while somebody has it open
    return first_refusal(why, transport)


def _cannot_read(offers: dict[int, IntGlobal], read: Callable[[int], int]) -> str:
    for peer, offer in offers.items():
        if offer.any():
            try:
                with closing(Opened(offer)) as opened:
                    if read(opened.address) != _greeting(peer):
                        return f"other bytes are read than rank {peer} wrote"
            except RuntimeError as err:
                return f"that of rank {peer}: {err}"
    return ""


def _greeting(rank: int) -> int:
    return (1 << 62) - rank


def first_refusal(why: str, transport: Transport) -> str:
    """Return, on all ranks, what the first rank that has anything to say says.

    Note: Collective over comm.
    """
    size, rank = transport.num_ranks, transport.rank
    found = int(transport.reduce(np.array([size - rank if why else 0], dtype=np.int64), "max")[0])
    return "" if found == 0 else transport.bcast(f"rank {rank}: {why}", size - found)


@cache
def process_token() -> bytes:
    """Return 16 bytes that no other process has: numbers of processes repeat in containers."""
    return uuid.uuid4().bytes
