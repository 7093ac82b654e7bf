"""The sparse exchange of bytes whose receivers do not know who will send to them."""

from __future__ import annotations

from collections.abc import Mapping

from mpi4py import MPI

import numpy as np

from sparsecomm.collectives.transport.base import Bytes, split
from sparsecomm.collectives.transport.waits import Wait


def sparse_exchange(
    comm: MPI.Comm, tag: int, blocks: Mapping[int, Bytes], max_bytes: int, wait: Wait
) -> dict[int, Bytes]:
    """Send each block to its rank and return what came, by rank of origin.

    The cost is that of the messages and one barrier; nothing is counted for ranks that are not spoken to.

    Args:
        comm: used for nothing else.
        tag: not that of the call before: a fast rank may begin the next call while a slow one ends this one.
        blocks: rank -> bytes; not modified.
        max_bytes: longer blocks are split.
        wait: of this call.

    Note: Collective over comm.

    Source: Hoefler, Siebert, Lumsdaine, "Scalable communication protocols for dynamic sparse data exchange",
        PPoPP 2010, algorithm NBX.
    """
    sends = [
        comm.Issend([piece, MPI.BYTE], peer, tag)
        for peer, block in blocks.items()
        if peer != comm.rank
        for piece in split(block, max_bytes)
    ]
    pieces: dict[int, list[Bytes]] = {}
    barrier: MPI.Request | None = None
    status = MPI.Status()
    while True:
        message = comm.Improbe(MPI.ANY_SOURCE, tag, status)
        if message is not None:
            pieces.setdefault(status.Get_source(), []).append(_receive(message, status))
        elif barrier is None:
            barrier = comm.Ibarrier() if MPI.Request.Testall(sends) else None
        elif barrier.Test():
            break
        else:
            wait.idle()
    own = {comm.rank: blocks[comm.rank]} if comm.rank in blocks else {}
    return {peer: part[0] if len(part) == 1 else np.concatenate(part) for peer, part in pieces.items()} | own


def _receive(message: MPI.Message, status: MPI.Status) -> Bytes:
    data = np.empty(status.Get_count(MPI.BYTE), dtype=np.uint8)
    message.Recv([data, MPI.BYTE])
    return data
