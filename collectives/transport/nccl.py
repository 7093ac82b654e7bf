"""Messages between GPUs by NCCL, on the current stream."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from sparsecomm.arrays import DeviceArray, current_stream, device_module, device_runtime
from sparsecomm.collectives.transport.base import Transport, agreed
from sparsecomm.errors import ExchangeError, InputError

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")  # names a machine inside its containers too
_SHARED_GPUS: Final = 23200  # the first NCCL that lets ranks share a GPU, on request
_SHARE: Final = "NCCL_MULTI_RANK_GPU_ENABLE"


class Nccl:
    """All ranks of a job, each with the GPU that is current when this is made.

    Raises:
        InputError: on all ranks, if `nccl_refusal` has something to say, or NCCL does not start.

    Note: Collective over comm.
    """

    def __init__(self, transport: Transport) -> None:
        why = nccl_refusal(transport)
        if why:
            raise InputError(f"NCCL cannot be used: {why}; leave the choice to auto, or take pinned")
        self._nccl = device_module().cuda.nccl
        token = transport.bcast(agreed(transport, lambda: self._token(transport.rank)))
        self._communicator = agreed(transport, lambda: self._join(transport, token))

    def swap(self, sends: Sequence[tuple[int, DeviceArray]], recvs: Sequence[tuple[int, DeviceArray]]) -> None:
        """Enqueue messages, all of which the peers enqueue too, in one group.

        Args:
            sends, recvs: peers and contiguous arrays on the GPU that messages come from, or go to.
        """
        if not sends and not recvs:
            return
        stream, nccl = int(current_stream().ptr), self._nccl
        nccl.groupStart()
        for peer, array in sends:
            self._communicator.send(array.data.ptr, _num_bytes(array), nccl.NCCL_UINT8, peer, stream)
        for peer, array in recvs:
            self._communicator.recv(array.data.ptr, _num_bytes(array), nccl.NCCL_UINT8, peer, stream)
        nccl.groupEnd()

    def close(self) -> None:
        """Free the communicator, once what was enqueued is done; a second call does nothing.

        Note: Collective over comm.
        """
        if self._communicator is not None:
            current_stream().synchronize()
            self._communicator.destroy()
            self._communicator = None

    def _token(self, rank: int) -> tuple[int, ...] | None:
        return tuple(self._nccl.get_unique_id()) if rank == 0 else None

    def _join(self, transport: Transport, token: tuple[int, ...] | None) -> Any:
        try:
            return self._nccl.NcclCommunicator(transport.num_ranks, token, transport.rank)
        except RuntimeError as err:
            raise ExchangeError(f"NCCL does not start: {err}; NCCL_DEBUG=INFO says more") from err


def nccl_refusal(transport: Transport) -> str:
    """Return why NCCL cannot join the ranks of a job, the same on all of them; empty where it can.

    Note: Collective over comm.
    """
    cuda = device_module().cuda
    nccl: Any = getattr(cuda, "nccl", None)
    lacking = int(nccl is None or not nccl.available)
    shares = 0 if lacking else int(os.environ.get(_SHARE) != "1" or nccl.get_version() < _SHARED_GPUS)
    found = transport.reduce(np.array([lacking, shares], dtype=np.int64), "max")
    if found[0]:
        return "CuPy was built without it on some rank, or cannot load it"
    pair = _two_on_one_gpu(transport) if found[1] else None
    if pair is None:
        return ""
    return f"ranks {pair[0]} and {pair[1]} use the same GPU; give each rank its own"


def _two_on_one_gpu(transport: Transport) -> tuple[int, int] | None:
    """Return two ranks whose GPU is one and the same, if there are such.

    Note: Collective over comm.
    """
    gpus = transport.collect(np.array([_gpu()], dtype=np.int64))
    order = np.argsort(gpus, kind="stable")
    again = np.flatnonzero(gpus[order][1:] == gpus[order][:-1])
    return (int(order[again[0]]), int(order[again[0] + 1])) if again.size else None


def _gpu() -> int:
    """Return a number that is the same for ranks that use the same GPU, and practically only for them."""
    machine = _BOOT.read_text() if _BOOT.exists() else platform.node()
    name = f"{machine} {device_runtime().deviceGetPCIBusId(device_module().cuda.Device().id)}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little", signed=True)


def _num_bytes(array: DeviceArray) -> int:
    return int(array.size * array.dtype.itemsize)
