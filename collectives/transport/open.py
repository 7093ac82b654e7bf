"""From what a user has in hand, a communicator or nothing, to a transport."""

from __future__ import annotations

from typing import cast

from sparsecomm.collectives.transport.base import Transport


def open_transport(comm: object | None = None) -> Transport:
    """Return a transport of one's own, to be closed by whoever asked for it.

    Args:
        comm: an mpi4py communicator, a transport, or None for the world of the job.

    Raises:
        LaunchError: the launcher started several processes, but each is a job of its own.

    Note: Collective over comm.
    """
    if comm is not None and hasattr(comm, "duplicate"):
        return cast(Transport, comm).duplicate()
    from sparsecomm.collectives.transport.mpi import MpiTransport

    return MpiTransport(comm)  # type: ignore[arg-type]
