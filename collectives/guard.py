"""What keeps everyone from using an exchange that failed or was closed."""

from __future__ import annotations

from typing import Self

from sparsecomm.errors import ExchangeError


class ClosedTogether:
    """Closes at the end of a `with` block, unless an error ends it.

    Closing is collective: a rank that fails alone would wait in it for ever instead of ending the job.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.close()

    def close(self) -> None:
        """Free what was made.

        Note: Collective over comm.
        """
        raise NotImplementedError


class Guard:
    """Remembers the first failure of the code that runs inside `with guard`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.cause: BaseException | None = None
        self.closed = False
        self.usable = True

    def check(self) -> None:
        """Raise an ExchangeError, the first cause chained, unless the exchange can be used."""
        if self.cause is not None:
            raise ExchangeError(f"{self._name} failed earlier: {self.cause}") from self.cause
        if self.closed:
            raise ExchangeError(f"{self._name} is closed")

    def fail(self, cause: BaseException) -> None:
        """Refuse all use from now on; the first cause is kept."""
        if self.cause is None:
            self.cause, self.usable = cause, False

    def close(self) -> None:
        """Refuse all use from now on."""
        self.closed, self.usable = True, False

    def __enter__(self) -> None:
        self.check()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self.fail(error)
