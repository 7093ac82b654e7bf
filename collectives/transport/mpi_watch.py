"""How the ranks of an MPI job find out together why it does not go on, and end it."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Final, NoReturn

from mpi4py import MPI

import numpy as np

from sparsecomm.collectives.transport.last_words import wait_for_last_words
from sparsecomm.collectives.transport.waits import END, Wait, Waiting, WaitReport, summarise

DEADLINE_PASSED: Final = 86

_ASK, _REPORT, _LEFT = 1, 2, 3  # tags
_MAX_SPEAKERS: Final = 4
_GRACE_S: Final = 1.2  # for reports to come in, and for a speaker to end the job before the next one does
_LEAVE_S: Final = 1.0  # others may take to come to the end before this rank tells them that it is there
_HOST_BYTES: Final = 48


class MpiWatch:
    """One rank's share in watching the job. Used by a transport and all its duplicates.

    Nothing is sent while all goes well. A rank whose wait lasts too long reports it to a few speakers, on different
    hosts where there are several; a speaker asks everybody for theirs, says what all of them mean and ends the job.
    The next speaker does so where the first one cannot, and in the end every rank for itself.

    Args:
        comm: duplicated, and the duplicate freed when the last user releases it.
        deadline_s: of every wait; 0 for none.

    Note: Collective over comm.
    """

    def __init__(self, comm: MPI.Intracomm, deadline_s: float) -> None:
        self.deadline_s = deadline_s
        self._comm = duplicate(comm, Wait(_Alone(deadline_s), lambda: Waiting("opening a transport")))
        self._rank = comm.rank
        self._rank_to_host = _hosts(self._comm, Wait(_Alone(deadline_s), lambda: Waiting("opening a transport")))
        self._speakers = _choose_speakers(self._rank_to_host)
        self._reports: dict[int, WaitReport] = {}
        self._left: set[int] = set()
        self._requests: list[MPI.Request] = []
        self._lock = threading.Lock()
        self._num_users = 1
        _OPEN.append(self)

    def retain(self) -> MpiWatch:
        self._num_users += 1
        return self

    def release(self) -> None:
        """Let go of the watch; the last user frees its communicator.

        Note: Collective over comm.
        """
        self._num_users -= 1
        if self._num_users == 0:
            _OPEN.remove(self)
            self._comm.Free()

    def look(self, wait: Wait) -> None:
        """Answer what others ask; end the job when the wait is hopeless or has taken too long."""
        if not self._lock.acquire(blocking=False):  # another thread of this rank looks
            return
        try:
            reason = self._hear(wait)
            if reason:
                self._end_job(wait, reason)
            elif wait.too_long:
                self._end_job(wait, f"a deadline of {wait.deadline_s:g} s has passed")
            elif self._waits_for_one_that_left(wait):
                self._end_job(wait, "a rank has left")
        finally:
            self._lock.release()

    def leave(self) -> None:
        """Wait at the end of the program until all ranks have come there."""
        request = self._comm.Ibarrier()
        wait = Wait(self, lambda: Waiting(END), deadline_s=0)  # others may have a lot to do yet
        told = False
        while not request.Test():
            wait.idle()
            time.sleep(1e-3)
            if not told and wait.seconds > _LEAVE_S:
                told = True
                self._send(None, _LEFT, range(self._comm.size))

    def _hear(self, wait: Wait) -> str:
        """Take in what other ranks say; return why to end the job, empty if there is no reason or others will."""
        reason = ""
        status = MPI.Status()
        while (message := self._comm.improbe(status=status)) is not None:
            tag, source, said = status.Get_tag(), status.Get_source(), message.recv()
            if tag == _ASK:
                self._send((self._report(wait), ""), _REPORT, [source])
            elif tag == _LEFT:
                self._left.add(source)
            else:
                self._reports[source], why = said
                reason = reason or why
        return reason

    def _waits_for_one_that_left(self, wait: Wait) -> bool:
        if not self._left:
            return False
        waiting = wait.describe()
        return waiting.what != END and not self._left.isdisjoint(waiting.peers or self._left)

    def _report(self, wait: Wait) -> WaitReport:
        return WaitReport(self._rank, self._rank_to_host[self._rank], wait.describe(), wait.seconds)

    def _end_job(self, wait: Wait, reason: str) -> NoReturn:
        """Collect reports for as long as it is others' turn to end the job, then end it."""
        own = self._reports[self._rank] = self._report(wait)
        print(f"sparsecomm: {own}", file=sys.stderr, flush=True)
        self._send((own, reason), _REPORT, self._speakers)
        is_speaker = self._rank in self._speakers
        if is_speaker:
            self._send(None, _ASK, [rank for rank in range(self._comm.size) if rank not in self._reports])
        turn = self._speakers.index(self._rank) if is_speaker else len(self._speakers)
        until_s = time.monotonic() + _GRACE_S * (turn + 1)
        while time.monotonic() < until_s and not (turn == 0 and len(self._reports) == self._comm.size):
            self._hear(wait)
            time.sleep(0.01)
        lines = summarise(self._reports.values(), self._rank_to_host) if is_speaker else ["no rank speaks for all"]
        end_job(f"sparsecomm: {reason}: " + "\nsparsecomm: ".join(lines))

    def _send(self, said: tuple[WaitReport, str] | None, tag: int, to_ranks: range | list[int]) -> None:
        self._requests += [self._comm.isend(said, rank, tag) for rank in to_ranks if rank != self._rank]


class _Alone:
    """The watch of a rank that cannot speak with the others yet."""

    def __init__(self, deadline_s: float) -> None:
        self.deadline_s = deadline_s

    def look(self, wait: Wait) -> None:
        if wait.too_long:
            report = WaitReport(MPI.COMM_WORLD.rank, MPI.Get_processor_name(), wait.describe(), wait.seconds)
            end_job(f"sparsecomm: a deadline of {wait.deadline_s:g} s has passed: {report}")


def complete(request: MPI.Request, wait: Wait) -> None:
    """Return when a request is complete."""
    while not request.Test():
        wait.idle()


def duplicate(comm: MPI.Intracomm, wait: Wait) -> MPI.Intracomm:
    """Return a duplicate of a communicator.

    Note: Collective over comm.
    """
    made, request = comm.Idup()
    complete(request, wait)
    return made


def end_job(last_words: str) -> NoReturn:
    """Print and end all ranks with exit code 86."""
    print(last_words, file=sys.stderr, flush=True)
    sys.stdout.flush()
    wait_for_last_words()
    # Where a node is cut off its launcher hears nothing of the abort, and MPI may wait for it.
    killer = threading.Timer(2.0, os._exit, [DEADLINE_PASSED])
    killer.daemon = True
    killer.start()
    MPI.COMM_WORLD.Abort(DEADLINE_PASSED)
    os._exit(DEADLINE_PASSED)


def leave_together() -> None:
    """Wait, where a transport was left open, until all its ranks come to their end; to be called at exit.

    Some launchers kill a job soon after its first rank has ended, and a rank that leaves early is found out here.
    """
    if not MPI.Is_finalized():
        for watch in list(_OPEN):
            watch.leave()


_OPEN: list[MpiWatch] = []


def _hosts(comm: MPI.Intracomm, wait: Wait) -> list[str]:
    own = np.zeros(_HOST_BYTES, dtype=np.uint8)
    name = np.frombuffer(MPI.Get_processor_name().encode()[:_HOST_BYTES], dtype=np.uint8)
    own[: name.size] = name
    names = np.empty((comm.size, _HOST_BYTES), dtype=np.uint8)
    complete(comm.Iallgather(own, names), wait)
    return [row.tobytes().rstrip(b"\0").decode(errors="replace") for row in names]


def _choose_speakers(rank_to_host: list[str]) -> list[int]:
    """Return a few ranks, each the first of its host as far as there are hosts."""
    firsts = list({host: rank for rank, host in reversed(list(enumerate(rank_to_host)))}.values())[::-1]
    firsts.sort()
    others = [rank for rank in range(len(rank_to_host)) if rank not in firsts[:_MAX_SPEAKERS]]
    return (firsts[:_MAX_SPEAKERS] + others[:_MAX_SPEAKERS])[:_MAX_SPEAKERS]
