"""What can go wrong, by who has to act."""

from __future__ import annotations


class SparseCommError(Exception):
    """Anything this library raises on purpose and that is not a plain ValueError or TypeError.

    Attributes:
        agreed: whether all ranks of the job raise it together, so that each may go on or leave without the others
            waiting for it.
    """

    agreed: bool = False


class InputError(SparseCommError, ValueError):
    """The user gave something unusable: a file, a generator, a topology, an option. Exit code 2."""


class PlanError(SparseCommError):
    """A plan breaks a rule of the stage list, or does not fit the matrix or the job it is used with."""


class ExchangeError(SparseCommError):
    """What was moved is not what was planned, or a peer failed; the exchange cannot be used again."""


class PeerError(ExchangeError):
    """Another rank, or the network to it, failed."""


class StoppedError(SparseCommError):
    """The job was asked to stop by a signal, and all its ranks leave together."""


class LaunchError(SparseCommError):
    """The job was started in a way that cannot work, for example N processes that became N jobs of one."""
