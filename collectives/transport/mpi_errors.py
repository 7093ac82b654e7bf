"""Errors of MPI as errors of the exchange."""

from __future__ import annotations

from mpi4py import MPI

from sparsecomm.errors import PeerError


class MpiErrors:
    """Turns errors of MPI into errors of the exchange, and costs less than a generator each time.

    Args:
        rank: for messages of errors.
    """

    def __init__(self, rank: int) -> None:
        self._rank = rank

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, MPI.Exception):
            raise PeerError(f"rank {self._rank}: MPI failed: {error.Get_error_string()}") from error
