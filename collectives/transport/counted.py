"""A communicator of mpi4py that counts what a program sends through it, by peer."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from typing import Any, Final

from mpi4py import MPI

import numpy as np
import numpy.typing as npt

from sparsecomm.typing import IntGlobal

_SENDS: Final = ("Send", "Ssend", "Bsend", "Rsend", "Isend", "Issend", "Ibsend", "Irsend")
_OBJECTS: Final = ("send", "ssend", "bsend", "isend", "issend", "ibsend")
_PERSISTENT: Final = ("Send_init", "Ssend_init", "Bsend_init", "Rsend_init")


class CountedComm:
    """Does all that a communicator does, and counts what this rank hands over for each peer.

    Counted are sends to a peer (also of objects, persistent ones and the sending half of Sendrecv), and for the
    collectives Bcast, Scatter(v), Gather(v), Allgather(v) and Alltoall(v), blocking or not, and bcast, scatter,
    gather, allgather and alltoall, the bytes that have to get from this rank to each other one, whatever way the
    library takes. Reductions, one-sided and neighbourhood communication pass uncounted.

    Args:
        comm: what really communicates; neither duplicated nor freed.

    Attributes:
        num_bytes, num_messages: (size,) int64, handed over for each peer; empty messages are counted.
    """

    def __init__(self, comm: MPI.Intracomm) -> None:
        self.comm = comm
        self.num_bytes: IntGlobal = np.zeros(comm.size, dtype=np.int64)
        self.num_messages: IntGlobal = np.zeros(comm.size, dtype=np.int64)
        for names, count in (
            (_SENDS, self._sent),
            (_OBJECTS, self._sent_object),
            (("Sendrecv", "Isendrecv"), self._sent),
            (("sendrecv",), self._sent_object),
        ):
            for name in names:
                if hasattr(comm, name):
                    setattr(self, name, self._counting(getattr(comm, name), count))
        for name in _PERSISTENT:
            setattr(self, name, self._persistent(getattr(comm, name)))
        for prefix in ("", "I"):
            for name, count in _COLLECTIVES.items():
                full = f"I{name.lower()}" if prefix else name
                setattr(self, full, self._counting(getattr(comm, full), self._bound(count)))
        for name, count in _OBJECT_COLLECTIVES.items():
            setattr(self, name, self._counting(getattr(comm, name), self._bound(count)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.comm, name)

    def add(self, peers: Iterable[int], sizes: Iterable[int]) -> None:
        """Count one message for each peer but this rank."""
        for peer, size in zip(peers, sizes, strict=True):
            if peer not in (self.comm.rank, MPI.PROC_NULL):
                self.num_bytes[peer] += size
                self.num_messages[peer] += 1

    def others(self, size: int) -> None:
        """Count a message of `size` bytes for every other rank."""
        self.add(range(self.comm.size), [size] * self.comm.size)

    def _bound(self, count: Callable[..., None]) -> Callable[..., None]:
        return lambda *args, **kwargs: count(self, *args, **kwargs)

    def _counting(self, act: Callable[..., Any], count: Callable[..., None]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = act(*args, **kwargs)
            count(*args, **kwargs)
            return result

        return call

    def _persistent(self, act: Callable[..., Any]) -> Callable[..., Any]:
        return lambda buf, dest, tag=0: CountedRequest(act(buf, dest, tag), self, dest, size_of(buf))

    def _sent(self, sendbuf: Any = None, dest: int = 0, *rest: Any, **named: Any) -> None:
        self.add([dest], [size_of(named.get("buf", sendbuf))])

    def _sent_object(self, obj: Any = None, dest: int = 0, *rest: Any, **named: Any) -> None:
        self.add([dest], [len(pickle.dumps(named.get("sendobj", obj)))])


class CountedRequest:
    """A persistent send that is counted each time it is started."""

    def __init__(self, request: MPI.Prequest, counted: CountedComm, dest: int, size: int) -> None:
        self.request, self._counted, self._dest, self._size = request, counted, dest, size

    def __getattr__(self, name: str) -> Any:
        return getattr(self.request, name)

    def Start(self) -> None:
        self.request.Start()
        self._counted.add([self._dest], [self._size])


def size_of(spec: Any) -> int:
    """Return the bytes of what mpi4py takes for a buffer: an object with one, or a list of it, a count and a type."""
    if spec is None or spec is MPI.IN_PLACE:
        return 0
    if not isinstance(spec, list | tuple):
        return memoryview(spec).nbytes if not hasattr(spec, "nbytes") else int(spec.nbytes)
    data, *rest = spec
    counts = [part for part in rest if isinstance(part, int | np.integer)]
    if counts:
        return int(counts[0]) * _itemsize(data, rest)
    return size_of(data)


def _itemsize(data: Any, rest: list[Any]) -> int:
    kinds = [part for part in rest if isinstance(part, MPI.Datatype)]
    return kinds[0].Get_size() if kinds else int(memoryview(data).itemsize)


def _parts(spec: Any, num_ranks: int) -> list[int]:
    """Return the bytes for each rank of a send buffer, of counts for each or of equal parts."""
    if isinstance(spec, list | tuple):
        data, *rest = spec
        for part in rest:
            counts: Any = part[0] if isinstance(part, tuple) else part
            if isinstance(counts, list | np.ndarray):
                sizes: npt.NDArray[np.int64] = np.asarray(counts, dtype=np.int64) * _itemsize(data, rest)
                return [int(size) for size in sizes]
    return [size_of(spec) // num_ranks] * num_ranks


def _bcast(counted: CountedComm, buf: Any, root: int = 0) -> None:
    if counted.comm.rank == root:
        counted.others(size_of(buf))


def _scatter(counted: CountedComm, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:
    if counted.comm.rank == root:
        counted.add(range(counted.comm.size), _parts(sendbuf, counted.comm.size))


def _gather(counted: CountedComm, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:
    counted.add([root], [size_of(sendbuf)])


def _allgather(counted: CountedComm, sendbuf: Any, recvbuf: Any) -> None:
    counted.others(size_of(sendbuf))


def _alltoall(counted: CountedComm, sendbuf: Any, recvbuf: Any) -> None:
    counted.add(range(counted.comm.size), _parts(sendbuf, counted.comm.size))


def _bcast_object(counted: CountedComm, obj: Any, root: int = 0) -> None:
    if counted.comm.rank == root:
        counted.others(len(pickle.dumps(obj)))


def _scatter_object(counted: CountedComm, sendobj: Any, root: int = 0) -> None:
    if counted.comm.rank == root:
        counted.add(range(counted.comm.size), [len(pickle.dumps(one)) for one in sendobj])


def _gather_object(counted: CountedComm, sendobj: Any, root: int = 0) -> None:
    counted.add([root], [len(pickle.dumps(sendobj))])


def _allgather_object(counted: CountedComm, sendobj: Any) -> None:
    counted.others(len(pickle.dumps(sendobj)))


def _alltoall_object(counted: CountedComm, sendobj: Any) -> None:
    counted.add(range(counted.comm.size), [len(pickle.dumps(one)) for one in sendobj])


_COLLECTIVES: Final[dict[str, Callable[..., None]]] = {
    "Bcast": _bcast,
    "Scatter": _scatter,
    "Scatterv": _scatter,
    "Gather": _gather,
    "Gatherv": _gather,
    "Allgather": _allgather,
    "Allgatherv": _allgather,
    "Alltoall": _alltoall,
    "Alltoallv": _alltoall,
}
_OBJECT_COLLECTIVES: Final[dict[str, Callable[..., None]]] = {
    "bcast": _bcast_object,
    "scatter": _scatter_object,
    "gather": _gather_object,
    "allgather": _allgather_object,
    "alltoall": _alltoall_object,
}
