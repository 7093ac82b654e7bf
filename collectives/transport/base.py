"""What every transport can do, and the rules they share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, NoReturn, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from sparsecomm import errors
from sparsecomm.collectives.transport.waits import Wait, Watch
from sparsecomm.errors import ExchangeError, InputError, SparseCommError
from sparsecomm.table import Router
from sparsecomm.typing import IntRank

T = TypeVar("T")
Bytes = npt.NDArray[np.uint8]

# Open MPI 5 refuses counts above 2**31 - 1; half of that leaves room for whatever a library adds.
MAX_PIECE_BYTES: Final = (1 << 30) - (1 << 12)
_MAX_REPORTS: Final = 8


@dataclass(frozen=True, slots=True, eq=False)
class MessageBuffer:
    """One message of a channel: whom it goes to or comes from, and the memory that holds it.

    Args:
        peer: the other rank.
        number: the same on both sides, and different for all messages between two ranks on one transport that
            can be under way at the same time.
        data: C-contiguous array of any dtype and shape; the channel reads or writes it in place. It may lie on a GPU
            where `Transport.device_refusal` has nothing to say.
    """

    peer: int
    number: int
    data: npt.NDArray[Any]


class Arrival(NamedTuple):
    """A receive that landed: which of the channel's receives, and how many bytes really came."""

    message: int
    num_bytes: int


Swap = Callable[[Callable[[], Wait]], Sequence[Arrival]]
"""Runs a channel from start to end; given what makes a wait, should one be needed, it returns what has arrived."""


class Channel(Protocol):
    """A fixed set of messages that run again and again over the same buffers.

    One run is `start`, then `post` of every other send once its buffer is packed, `test` or `wait` until all
    receives have landed, and `finish`.
    """

    @property
    def pieces(self) -> Sequence[int]:
        """How many pieces each send is split into."""

    def start(self, posts: tuple[int, ...] = ()) -> None:
        """Arm every receive for one run, then send the messages `posts`, whose buffers are packed."""

    def post(self, index: int, num_bytes: int | None = None) -> None:
        """Send message `index` as its buffer is now, or its first `num_bytes`, if it is not split into pieces."""

    def test(self) -> list[Arrival]:
        """Return the receives that landed since the last question, without blocking."""

    def wait(self, wait: Wait, *, all_at_once: bool = False) -> list[Arrival]:
        """Return the receives that landed since the last question, at least one of them.

        Args:
            wait: of this call.
            all_at_once: nothing that this rank does after some of them brings the others about, so that waiting for
                all of them is allowed, if it costs less.
        """

    def sent(self) -> bool:
        """Return whether the buffers of all posted sends may be written again."""

    def finish(self, wait: Wait) -> None:
        """Block until `sent()`."""

    def swap(self, posts: tuple[int, ...]) -> Swap | None:
        """Return a call that is a whole run, which sends the messages `posts`; None where it would gain nothing.

        Only sends that wait for no receive may be posted like that.
        """

    def as_one(self) -> Channel:
        """Close this channel and return one of the same messages that takes part in one call of all ranks in each run.

        There must be one message at most to each peer, and one from it.

        Note: Collective over comm.
        """

    def close(self) -> None:
        """Release the channel; receives still armed are cancelled."""


class SharedMemory(Protocol):
    """Memory that ranks of one machine have in common."""

    @property
    def data(self) -> Bytes:
        """All of it, the same bytes on every rank."""

    def fence(self) -> None:
        """Make what this rank wrote before visible to others, and what others wrote before their fence to this one."""

    def close(self) -> None:
        """Give the memory back; a second call does nothing.

        Note: Collective over comm.
        """


class Transport(Router, Protocol):
    """One rank's access to the others; all methods but `open`, `progress` and `device_refusal` are collective."""

    @property
    def rank(self) -> int:
        """This rank."""

    @property
    def num_shared(self) -> int:
        """How many levels of a topology, the innermost, an exchange is to go through shared memory for."""

    @property
    def wins_as_one(self) -> bool:
        """Whether small messages are faster once `Channel.as_one` has joined them."""

    def neighbours(self) -> IntRank:
        """Return the ranks that can share memory with this one, itself among them, ascending.

        Note: Collective over comm.
        """

    def device_refusal(self) -> str:
        """Return why messages of this rank cannot lie in the memory of a GPU; empty where they can.

        The transport knows nothing of streams: what is to be sent, and what is read of the run before, must be done.
        """

    def progress(self) -> None:
        """Let messages under way go on, for who waits for something else than a message."""

    def share(self, num_bytes: int) -> SharedMemory | None:
        """Return memory in common with the `neighbours`, all of which ask for as much; None, on all ranks of the
        transport, where some rank cannot have it.

        Note: Collective over comm.
        """

    @property
    def watch(self) -> Watch:
        """What looks at every long wait of this rank."""

    def agree(self, error: BaseException | None) -> None:
        """Raise on all ranks if any rank has an error.

        Args:
            error: what went wrong on this rank, or None.

        Raises:
            BaseException: `error` itself where there is one; elsewhere an error of the class of the first
                failing rank (`ExchangeError` where that is not of `sparsecomm.errors`), naming the ranks.

        Note: Collective over comm.
        """

    def bcast(self, obj: T, root: int = 0) -> T:
        """Return the small Python object that `root` gave.

        Note: Collective over comm.
        """

    def barrier(self) -> None:
        """Return when all ranks have come here.

        Note: Collective over comm.
        """

    def duplicate(self, num_shared: int | None = None) -> Transport:
        """Return a transport over the same ranks whose messages never match those of this one.

        Args:
            num_shared: of the new one; None as here.

        Note: Collective over comm.
        """

    def open(self, sends: Sequence[MessageBuffer], recvs: Sequence[MessageBuffer]) -> Channel:
        """Prepare messages that will run many times; purely local."""

    def close(self) -> None:
        """Free what the transport duplicated; a second call does nothing.

        Note: Collective over comm.
        """


class Report(NamedTuple):
    """An error of another rank as it travels: enough to raise its like."""

    rank: int
    kind: str
    text: str

    @staticmethod
    def of(rank: int, error: BaseException | None) -> Report | None:
        return None if error is None else Report(rank, type(error).__name__, str(error))


def agreed(transport: Transport, act: Callable[[], T]) -> T:
    """Return `act()`; an error of it on any rank is raised on all.

    Note: Collective over comm.
    """
    error: Exception | None = None
    try:
        result = act()
    except Exception as err:
        error = err
    transport.agree(error)
    return result


def raise_agreed(error: BaseException | None, reports: Sequence[Report]) -> NoReturn:
    """Raise what `Transport.agree` promises.

    Args:
        error: this rank's own error, or None.
        reports: of all failing ranks, ascending; at least one.
    """
    if isinstance(error, SparseCommError):
        error.agreed = True
    if error is not None:
        raise error
    kind = getattr(errors, reports[0].kind, None)
    known = isinstance(kind, type) and issubclass(kind, SparseCommError)
    raised: type[SparseCommError] = kind if isinstance(kind, type) and known else ExchangeError
    lines = [f"rank {r.rank}: {r.text if known else f'{r.kind}: {r.text}'}" for r in reports[:_MAX_REPORTS]]
    if len(reports) > _MAX_REPORTS:
        lines.append(f"and {len(reports) - _MAX_REPORTS} more ranks")
    together = raised("; ".join(lines))
    together.agreed = True
    raise together


def byte_view(data: npt.NDArray[Any]) -> Bytes:
    """Return the memory of a C-contiguous array as bytes.

    Raises:
        InputError: the array is not C-contiguous.
    """
    if not data.flags.c_contiguous:
        raise InputError(f"a message buffer must be C-contiguous, not strided {data.strides}")
    return data.reshape(-1).view(np.uint8)


def split(data: Bytes, max_bytes: int) -> list[Bytes]:
    """Return `data` in pieces of at most `max_bytes`; one empty piece where there is nothing."""
    return [data[begin : begin + max_bytes] for begin in range(0, max(data.size, 1), max_bytes)]


class Landing:
    """Counts the pieces of each receive until the message is whole.

    A piece shorter than its place ends the message early, so that its receiver learns of the loss instead of
    waiting for pieces that nobody sent.

    Args:
        sizes: for each receive the bytes that each of its pieces has room for.
    """

    def __init__(self, sizes: Sequence[Sequence[int]]) -> None:
        self._sizes, self._num_pieces = sizes, [len(pieces) for pieces in sizes]
        self._left: list[int] = []
        self._num_bytes: list[int] = []
        self.num_open = 0

    def start(self) -> None:
        self.num_open = len(self._sizes)
        self._left = list(self._num_pieces)
        self._num_bytes = [0] * len(self._sizes)

    def land(self, index: int, piece: int, num_bytes: int) -> Arrival | None:
        """Count a piece and return the arrival that it completes, if any."""
        self._num_bytes[index] += num_bytes
        short = num_bytes < self._sizes[index][piece]
        self._left[index] = min(0, self._left[index] - 1) if short else self._left[index] - 1
        if self._left[index] != 0:
            return None
        self.num_open -= 1
        return Arrival(index, self._num_bytes[index])
