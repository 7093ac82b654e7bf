"""Recording what a job does, from the first `with` to a directory that `sparsecomm report` reads."""

from __future__ import annotations

import atexit
import logging
import os
import secrets
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sparsecomm.collectives.ranges import VARIABLE as NVTX
from sparsecomm.collectives.ranges import nvtx_ranges
from sparsecomm.collectives.transport.base import Transport, agreed
from sparsecomm.collectives.transport.clocks import clock_offset_ns
from sparsecomm.collectives.transport.open import detect_topology, open_transport
from sparsecomm.profile import CAPACITY, VARIABLE, Ranges, Recorder, activate, active, clock
from sparsecomm.profile_store import save_header, save_rank, start_directory
from sparsecomm.topology import Topology

if TYPE_CHECKING:
    from sparsecomm.collectives.transport.attached import Attached

_LOG: Final = logging.getLogger("sparsecomm")


class Profile:
    """A recording of what the exchanges and products of this rank do inside its `with`.

    Every rank writes a file of its own at the end, also where an error ends the `with`; nobody waits for anybody then.

    Attributes:
        recorder: the totals and spans of this rank so far.
        report: what rank 0 adds to the header; JSON.

    Example:
        >>> with Profile.record("profile", comm):  # doctest: +SKIP
        ...     y = A @ x
    """

    def __init__(self, path: Path, run: str, recorder: Recorder, topology: Topology, clock_offset_ns: int) -> None:
        self.path, self.run, self.recorder, self.topology = path, run, recorder, topology
        self.report: dict[str, Any] = {}
        self._offset_ns = clock_offset_ns
        self._before: Recorder | None = None
        self._began_ns = clock()

    @staticmethod
    def record(
        path: str | Path,
        comm: object | None = None,
        *,
        topology: Topology | None = None,
        capacity: int = CAPACITY,
        nvtx: bool | None = None,
    ) -> Profile:
        """Prepare a recording: make its directory and compare the clocks of all ranks.

        Args:
            path: a directory to make; an earlier recording there is replaced.
            comm: an mpi4py communicator or a transport; None is the world.
            topology: of the job; None finds it.
            capacity: spans kept on each rank, the latest; 48 bytes each.
            nvtx: whether NVIDIA's profilers are told as well; None: if `SPARSECOMM_NVTX` is set.

        Raises:
            InputError: on every rank, when the directory cannot be made, or the package nvtx is asked for and missing.

        Note: Collective over comm.
        """
        transport = open_transport(comm)
        machine = topology or detect_topology(transport)
        run = transport.bcast(secrets.token_hex(8))
        place, num_ranks = Path(path), transport.num_ranks

        def prepare() -> Ranges | None:
            wanted = bool(os.environ.get(NVTX)) if nvtx is None else nvtx
            ranges = nvtx_ranges() if wanted else None
            if transport.rank == 0:
                start_directory(place, run, num_ranks, machine.to_dict())
            return ranges

        recorder = Recorder(transport.rank, num_ranks, capacity, agreed(transport, prepare))
        offset_ns = clock_offset_ns(transport)
        _LOG.info("rank %d records to %s, its clock %d ns ahead of that of rank 0", transport.rank, place, offset_ns)
        transport.close()
        return Profile(place, run, recorder, machine, offset_ns)

    @staticmethod
    def attach(comm: Any, topology: Topology | None = None) -> Attached:
        """Return a communicator that counts what a program of its own sends through it.

        Args:
            comm: of mpi4py; use what is returned in its place.
            topology: of its ranks; None finds it.

        Note: Collective over comm.

        Example:
            >>> comm = Profile.attach(MPI.COMM_WORLD)  # doctest: +SKIP
            >>> comm.Alltoallv(send, receive)  # doctest: +SKIP
            >>> comm.traffic()  # doctest: +SKIP
        """
        from sparsecomm.collectives.transport.attached import Attached

        return Attached(comm, topology)

    def __repr__(self) -> str:
        return f"Profile({str(self.path)!r}, rank={self.recorder.rank}, spans={self.recorder.num_spans})"

    def __enter__(self) -> Profile:
        self._began_ns = clock()
        self._before = activate(self.recorder)
        return self

    def __exit__(self, *error: object) -> None:
        activate(self._before)
        self.save()

    def save(self) -> None:
        """Write the file of this rank and, on rank 0, the header."""
        times = {"clock_offset_ns": self._offset_ns, "began_ns": self._began_ns, "ended_ns": clock()}
        save_rank(self.path, self.run, self.recorder, {"host": socket.gethostname(), **times})
        kept, made = len(self.recorder.spans), self.recorder.num_spans
        _LOG.info("rank %d wrote %d of %d spans to %s", self.recorder.rank, kept, made, self.path)
        if self.recorder.rank == 0:
            self.save_report()

    def save_report(self) -> None:
        """Write the header with `report` in it; rank 0 calls it alone."""
        topology, num_ranks = self.topology.to_dict(), self.recorder.num_ranks
        header = {"run": self.run, "num_ranks": num_ranks, "topology": topology, "report": self.report}
        save_header(self.path, header)


def record_from_environment(transport: Transport, topology: Topology | None = None) -> None:
    """Record this process from now on if `SPARSECOMM_PROFILE` names a directory and nothing is recorded yet.

    Only ranks that are processes: threads come and go within a program. Levels are those of `topology`; None finds it.

    Note: Collective over comm, where the variable is set.
    """
    path = os.environ.get(VARIABLE)
    if path and active() is None and hasattr(transport, "comm"):
        profile = Profile.record(path, transport, topology=topology)
        activate(profile.recorder)
        atexit.register(profile.save)
