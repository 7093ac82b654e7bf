"""From what a user has in hand, a communicator or nothing, to a transport."""

from __future__ import annotations

from typing import cast

import numpy as np

from sparsecomm.collectives.transport.base import Transport
from sparsecomm.topology import Topology


def open_transport(
    comm: object | None = None, *, deadline_s: float | None = None, num_shared: int | None = None
) -> Transport:
    """Return a transport of one's own, to be closed by whoever asked for it.

    Args:
        comm: an mpi4py communicator, a transport, or None for the world of the job.
        deadline_s: of every wait, see `MpiTransport`; not for a transport that is given, which has its own.
        num_shared: how many levels, the innermost, exchanges go through shared memory for; None as a transport that
            is given, else 0.

    Raises:
        LaunchError: the launcher started several processes, but each is a job of its own.

    Note: Collective over comm.
    """
    if comm is not None and hasattr(comm, "duplicate"):
        return cast(Transport, comm).duplicate(num_shared)
    from sparsecomm.collectives.transport.mpi import MpiTransport

    return MpiTransport(comm, deadline_s=deadline_s, num_shared=num_shared or 0)  # type: ignore[arg-type]


def detect_topology(transport: Transport) -> Topology:
    """Return the topology of a job: over MPI, nodes are the ranks that can share memory; threads are one node.

    Note: Collective over comm.
    """
    comm = getattr(transport, "comm", None)
    if comm is None:
        return Topology.from_nodes(np.zeros(transport.num_ranks, dtype=np.int32))
    from sparsecomm.collectives.transport.mpi import topology_of

    return topology_of(comm)
