"""Ranks as processes of an MPI job, rows in host memory."""

from __future__ import annotations

import atexit
import os
import pickle
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, TypeVar

from mpi4py import MPI

import numpy as np

from sparsecomm.collectives.transport.base import MAX_PIECE_BYTES, MessageBuffer, Report, raise_agreed
from sparsecomm.collectives.transport.last_words import wait_for_last_words
from sparsecomm.collectives.transport.leave import mark_joined, mark_left, stop_asked
from sparsecomm.collectives.transport.mpi_channel import MpiChannel
from sparsecomm.collectives.transport.mpi_collective import call_wins
from sparsecomm.collectives.transport.mpi_gpu import gpu_refusal
from sparsecomm.collectives.transport.mpi_memory import MpiMemory, fits_shared
from sparsecomm.collectives.transport.mpi_watch import MpiWatch, complete, duplicate, leave_together
from sparsecomm.collectives.transport.nbx import sparse_exchange
from sparsecomm.collectives.transport.packing import pack_rows, unpack_rows
from sparsecomm.collectives.transport.waits import Wait, Waiting, check_deadline, read_deadline
from sparsecomm.collectives.transport.world import check_world
from sparsecomm.errors import ExchangeError, InputError, PeerError
from sparsecomm.table import Column, Table
from sparsecomm.topology import Topology
from sparsecomm.typing import IntGlobal, IntRank

T = TypeVar("T")

_INTERRUPTED: Final = 130  # what shells call the end by Ctrl-C


class MpiTransport:
    """One rank of a communicator.

    The first one of a process checks that the job is the one that was started, and in a job of several ranks sees to
    it that an error that nobody catches, in any thread of any rank, ends the job.

    Args:
        comm: duplicated, and the duplicate freed by `close`; the world where None.
        max_bytes: longer messages are split.
        deadline_s: the longest that any wait may take before the job is ended with exit code 86; 0 for no end, None
            for what `SPARSECOMM_DEADLINE` says, or 300.
        num_shared: how many levels of a topology, the innermost, exchanges go through shared memory for, where its
            ranks can have it.

    Raises:
        LaunchError: the launcher started several processes, but each is a job of its own.
        InputError: `max_bytes` or `deadline_s` is out of range.

    Note: Collective over comm.
    """

    def __init__(
        self,
        comm: MPI.Intracomm | None = None,
        *,
        max_bytes: int = MAX_PIECE_BYTES,
        deadline_s: float | None = None,
        num_shared: int = 0,
    ) -> None:
        if not 1 <= max_bytes <= MAX_PIECE_BYTES:
            raise InputError(f"max_bytes must be 1 .. {MAX_PIECE_BYTES}, not {max_bytes}")
        deadline_s = read_deadline(os.environ) if deadline_s is None else check_deadline(deadline_s)
        _enter_job()
        given = MPI.COMM_WORLD if comm is None else comm
        self._set_up(given, MpiWatch(given, deadline_s), max_bytes, num_shared)

    def _set_up(self, comm: MPI.Intracomm, watch: MpiWatch, max_bytes: int, num_shared: int) -> None:
        self._watch, self._max_bytes, self._num_shared = watch, max_bytes, num_shared
        self._comm: MPI.Intracomm | None = duplicate(comm, self._wait("duplicating a communicator"))
        self._rank, self._num_ranks = comm.rank, comm.size
        self._route_comm: MPI.Intracomm | None = None
        self._node_comm: MPI.Intracomm | None = None
        self._num_routes = 0

    def __repr__(self) -> str:
        return f"MpiTransport(rank={self._rank}, num_ranks={self._num_ranks})"

    def __enter__(self) -> MpiTransport:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # Freeing is collective: a rank that fails alone would wait in it for ever instead of ending the job.
        if error is None:
            self.close()

    @property
    def comm(self) -> MPI.Intracomm:
        """The communicator of this transport."""
        if self._comm is None:
            raise ExchangeError(f"rank {self._rank}: the transport is closed")
        return self._comm

    @property
    def watch(self) -> MpiWatch:
        """What looks at every long wait of this rank."""
        return self._watch

    @property
    def rank(self) -> int:
        return self._rank

    @property
    def num_ranks(self) -> int:
        return self._num_ranks

    @property
    def held(self) -> range:
        return range(self._rank, self._rank + 1)

    @property
    def num_shared(self) -> int:
        return self._num_shared

    @property
    def wins_as_one(self) -> bool:
        return call_wins() and self._max_bytes == MAX_PIECE_BYTES

    def neighbours(self) -> IntRank:
        """Return the ranks that can share memory; see `Transport.neighbours`.

        Note: Collective over comm.
        """
        return np.array(self._node().allgather(self._rank), dtype=np.int32)

    def device_refusal(self) -> str:
        """Return why this MPI is given no memory of GPUs; see `Transport.device_refusal`."""
        return gpu_refusal(os.environ)

    def progress(self) -> None:
        """Let messages under way go on; see `Transport.progress`."""
        self.comm.Iprobe()

    def share(self, num_bytes: int) -> MpiMemory | None:
        """Return memory in common with the neighbours; see `Transport.share`.

        Note: Collective over comm.
        """
        node = self._node()
        if self.reduce(np.array([node.rank == 0 and not fits_shared(num_bytes)]), "max")[0]:
            return None
        memory = MpiMemory.of(node, num_bytes)
        if not self.reduce(np.array([memory is None]), "max")[0]:
            return memory
        if memory is not None:
            memory.close()
        return None

    def _node(self) -> MPI.Intracomm:
        if self._node_comm is None:
            self._node_comm = MPI.Intracomm(self.comm.Split_type(MPI.COMM_TYPE_SHARED, self._rank))
        return self._node_comm

    def route(self, table: Table, to_rank: IntRank) -> Table:
        """Move row i to rank `to_rank[i]`; see `Router.route`.

        Note: Collective over comm.
        """
        blocks = pack_rows(table, to_rank, self._num_ranks)
        if self._route_comm is None:
            self._route_comm = duplicate(self.comm, self._wait("duplicating a communicator"))
        self._num_routes += 1
        wait = self._wait(f"sparse exchange {self._num_routes}")
        received = sparse_exchange(self._route_comm, self._num_routes % 2, blocks, self._max_bytes, wait)
        return unpack_rows(table, self._rank, received)

    def reduce(self, values: Column, op: Literal["sum", "max"]) -> Column:
        """Return the sum or maximum over the ranks; see `Router.reduce`.

        Note: Collective over comm.
        """
        given = np.ascontiguousarray(values)
        result = np.empty_like(given)
        complete(self.comm.Iallreduce(given, result, op=_reduction(op, given)), self._wait("a reduction"))
        return result.reshape(np.shape(values))

    def collect(self, values: IntGlobal) -> IntGlobal:
        """Return what every rank gave; see `Router.collect`.

        Note: Collective over comm.
        """
        result = np.empty(self._num_ranks, dtype=np.int64)
        given = np.ascontiguousarray(values, dtype=np.int64)
        complete(self.comm.Iallgather(given, result), self._wait("a collection"))
        return result

    def agree(self, error: BaseException | None) -> None:
        """Raise on all ranks if any rank has an error; see `Transport.agree`.

        Note: Collective over comm.
        """
        error = error or stop_asked()
        if self.reduce(np.array([error is not None]), "max")[0]:
            given = self._allgather(pickle.dumps(Report.of(self._rank, error)))
            reports = [pickle.loads(report) for report in given]
            raise_agreed(error, [report for report in reports if report is not None])

    def bcast(self, obj: T, root: int = 0) -> T:
        """Return the object that `root` gave; see `Transport.bcast`.

        Note: Collective over comm.
        """
        # Not MPI's own: every wait must be one that is watched.
        data = np.frombuffer(pickle.dumps(obj), dtype=np.uint8).copy()
        size = np.array([data.size], dtype=np.int64)
        complete(self.comm.Ibcast(size, root), self._wait("a broadcast"))
        if self._rank != root:
            data = np.empty(size[0], dtype=np.uint8)
        complete(self.comm.Ibcast(data, root), self._wait("a broadcast"))
        return obj if self._rank == root else pickle.loads(data.data)

    def barrier(self) -> None:
        """Return when all ranks have come here.

        Note: Collective over comm.
        """
        complete(self.comm.Ibarrier(), self._wait("a barrier"))

    def duplicate(self, num_shared: int | None = None) -> MpiTransport:
        """Return a transport over a duplicate of the communicator.

        Note: Collective over comm.
        """
        copy = MpiTransport.__new__(MpiTransport)
        shared = self._num_shared if num_shared is None else num_shared
        copy._set_up(self.comm, self._watch.retain(), self._max_bytes, shared)
        return copy

    def open(self, sends: Sequence[MessageBuffer], recvs: Sequence[MessageBuffer]) -> MpiChannel:
        """Prepare messages that will run many times.

        Raises:
            InputError: a message number is beyond the largest tag of this MPI.
        """
        most = self.comm.Get_attr(MPI.TAG_UB) or 32767
        worst = max((message.number for message in (*sends, *recvs)), default=0)
        if worst > most:
            raise InputError(f"message number {worst} is beyond the largest tag of this MPI, {most}")
        return MpiChannel(self.comm, sends, recvs, self._max_bytes)

    def close(self) -> None:
        """Free the communicators; a second call does nothing.

        Note: Collective over comm.
        """
        if self._comm is None:
            return
        complete(self._comm.Ibarrier(), self._wait("closing a transport"))
        for comm in (self._node_comm, self._route_comm, self._comm):
            if comm is not None:
                comm.Free()
        self._comm = self._route_comm = self._node_comm = None
        self._watch.release()

    def _allgather(self, data: bytes) -> list[bytes]:
        """Return what every rank gave.

        Note: Collective over comm.
        """
        ends = np.cumsum(self.collect(np.array([len(data)])))
        whole, sizes = bytearray(int(ends[-1])), np.diff(ends, prepend=0)
        request = self.comm.Iallgatherv([data, MPI.BYTE], [whole, sizes, ends - sizes, MPI.BYTE])
        complete(request, self._wait("a collection"))
        return [bytes(part) for part in np.split(np.frombuffer(whole, dtype=np.uint8), ends[:-1])]

    def _wait(self, what: str) -> Wait:
        return Wait(self._watch, lambda: Waiting(what))


def topology_of(comm: MPI.Intracomm) -> Topology:
    """Return the two-level topology of a communicator: nodes are the ranks that can share memory.

    Note: Collective over comm.
    """
    shared = comm.Split_type(MPI.COMM_TYPE_SHARED)
    first = shared.bcast(comm.rank, 0)
    shared.Free()
    rank_to_node = np.empty(comm.size, dtype=np.int32)
    comm.Allgather(np.array([first], dtype=np.int32), rank_to_node)
    return Topology.from_nodes(rank_to_node)


def _reduction(op: Literal["sum", "max"], values: Column) -> MPI.Op:
    if values.dtype == np.bool_:
        return MPI.LOR
    return MPI.SUM if op == "sum" else MPI.MAX


_job = threading.Lock()
_entered = False


def _enter_job() -> None:
    """Check the world, once in a process, and arm the hooks that end the job."""
    global _entered
    with _job:
        if not _entered:
            check_world(MPI.COMM_WORLD.size, os.environ)
            if MPI.COMM_WORLD.size > 1:
                install_abort_hooks()
            mark_joined(MPI.COMM_WORLD.rank)
            atexit.register(_leave)
            _entered = True


def _leave() -> None:
    leave_together()
    mark_left(MPI.COMM_WORLD.rank)


def install_abort_hooks() -> None:
    """Make an error that nobody catches, in any thread, end the whole job and not only this rank.

    The other ranks would wait for ever, on every MPI.
    """
    last_words, thread_words = sys.excepthook, threading.excepthook

    def on_main(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if issubclass(kind, KeyboardInterrupt):  # every rank is told, and no traceback would tell the user more
            MPI.COMM_WORLD.Abort(_INTERRUPTED)
        _abort(kind, lambda: last_words(kind, error, trace))

    def on_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_type is not SystemExit:  # which ends a thread quietly
            _abort(args.exc_type, lambda: thread_words(args))

    sys.excepthook, threading.excepthook = on_main, on_thread


def _abort(kind: type[BaseException], print_error: Callable[[], object]) -> None:
    try:
        sys.stdout.flush()
        # Whoever loses a peer is not to blame.
        blame = "" if issubclass(kind, PeerError) else "at fault: "
        print(f"sparsecomm: {blame}rank {MPI.COMM_WORLD.rank} on host {MPI.Get_processor_name()}:", file=sys.stderr)
        print_error()
        wait_for_last_words()
    finally:
        if not MPI.Is_finalized():
            MPI.COMM_WORLD.Abort(1)
