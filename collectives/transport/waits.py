"""What a rank waits for, how long it has, and what the reports of all ranks say together."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from sparsecomm.errors import InputError

VARIABLE: Final = "SPARSECOMM_DEADLINE"
DEFAULT_S: Final = 300.0

END: Final = "the end of its program"
_LOOK_EVERY_S: Final = 0.05
_SPINS_PER_CLOCK: Final = 16  # reading the clock at every turn would cost as much as the turn
_LONG_TURN_S: Final = 3e-5  # giving way takes a microsecond where nobody else wants the core
_CROWDED_S: Final = 0.05
_TURNS_AWAKE: Final = 4
_DOZE_S: Final = 5e-5
# 4 ranks on 2 cores: a run of small messages takes 24 us like this, and 200 where who waits sleeps at once.
_AWAKE_S: Final = 5e-4
_MAX_SHOWN: Final = 8

# For loops that poll: there may be more ranks than cores. A forward run of 2 messages takes, with MPI_Waitsome of
# MPICH 5.0.2 and with a loop of MPI_Testsome that gives way: 10.7 and 11.6 us with 2 ranks on 2 cores, 5300 and
# 100 us with 4 ranks on them. time.sleep(0) is no substitute: it sleeps 50 us.
give_way: Final[Callable[[], None]] = getattr(os, "sched_yield", lambda: time.sleep(0))


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a rank waits for.

    Args:
        what: the call, for people, such as `a run forwards of plan 3f..`.
        peers: the ranks without which it cannot go on; empty for all others.
        stage: how far it has come, such as `stage 2 of 3`, or empty.
    """

    what: str
    peers: tuple[int, ...] = ()
    stage: str = ""


class Watch(Protocol):
    """Looks at every long wait of one rank now and then."""

    @property
    def deadline_s(self) -> float:
        """Seconds that a wait may take, 0 for any time."""

    def look(self, wait: Wait) -> None:
        """Answer what others ask; end the job, or raise, when the wait is hopeless or has taken too long."""


class _Cores:
    """Whether others want the core that this process polls on.

    Then polling takes time from those who are waited for: 8 ranks that only give way on 2 cores took 25 ms for messages
    that the wire carries in 7.
    """

    crowded_until_s = 0.0

    @classmethod
    def give_way(cls) -> None:
        begin_s = time.monotonic()
        give_way()
        now_s = time.monotonic()
        if now_s - begin_s > _LONG_TURN_S:
            cls.crowded_until_s = now_s + _CROWDED_S


class Wait:
    """One wait. Whoever polls calls `idle` between two questions, and makes a new one after every success.

    Args:
        watch: of the transport.
        describe: tells what is waited for; asked only when somebody wants to know.
        deadline_s: instead of that of the watch; 0 for none.
    """

    __slots__ = ("_deadline_s", "_next_s", "_spins", "_watch", "describe", "since_s")

    def __init__(self, watch: Watch, describe: Callable[[], Waiting], deadline_s: float | None = None) -> None:
        self._watch, self.describe, self._deadline_s = watch, describe, deadline_s
        self._spins = 0
        self.since_s = self._next_s = 0.0

    @property
    def deadline_s(self) -> float:
        return self._watch.deadline_s if self._deadline_s is None else self._deadline_s

    @property
    def seconds(self) -> float:
        """How long it has lasted."""
        return time.monotonic() - self.since_s if self.since_s else 0.0

    @property
    def too_long(self) -> bool:
        return 0 < self.deadline_s <= self.seconds

    def idle(self) -> None:
        """Give the core away; look after the job where it is time to."""
        if self._spins >= _TURNS_AWAKE and time.monotonic() < _Cores.crowded_until_s:
            time.sleep(_DOZE_S)
        else:
            _Cores.give_way()
        self._spins += 1
        if self._spins % _SPINS_PER_CLOCK == 0:
            self._tick()

    def look(self) -> None:
        """Look after the job now."""
        self.since_s = self.since_s or time.monotonic()
        self._watch.look(self)

    def _tick(self) -> None:
        now = time.monotonic()
        if not self.since_s:
            self.since_s, self._next_s = now, now + _LOOK_EVERY_S
        elif now >= self._next_s:
            self._next_s = now + _LOOK_EVERY_S
            self._watch.look(self)


def until(over: Callable[[], bool], make_wait: Callable[[], Wait]) -> None:
    """Return when something small is over, most likely soon: only who waits longer sleeps between two looks."""
    awake_until_s = time.monotonic() + _AWAKE_S
    while time.monotonic() < awake_until_s:
        give_way()
        if over():
            return
    wait = make_wait()
    while not over():
        wait.idle()


@dataclass(frozen=True, slots=True)
class WaitReport:
    """What one rank says of its wait.

    Args:
        rank: that waits.
        host: it runs on.
        waiting: for what.
        seconds: since when.
    """

    rank: int
    host: str
    waiting: Waiting
    seconds: float

    def __str__(self) -> str:
        stage = f"{self.waiting.stage} of " if self.waiting.stage else ""
        peers = f", for {name_ranks(self.waiting.peers)}" if self.waiting.peers else ""
        place = f"{stage}{self.waiting.what}{peers}"
        return f"rank {self.rank} on host {self.host} has waited {self.seconds:.1f} s in {place}"


def summarise(reports: Collection[WaitReport], rank_to_host: Sequence[str]) -> list[str]:
    """Return, in lines, why a job does not go on: who waits for whom, and who said nothing.

    Args:
        reports: at most one of each rank.
        rank_to_host: (num_ranks,) hosts.
    """
    by_rank = {report.rank: report for report in reports}
    silent = [rank for rank in range(len(rank_to_host)) if rank not in by_rank]
    lines = [f"{len(by_rank)} of {len(rank_to_host)} ranks report"]
    lines += [f"  {by_rank[rank]}" for rank in sorted(by_rank)[:_MAX_SHOWN]]
    if len(by_rank) > _MAX_SHOWN:
        lines.append(f"  and {len(by_rank) - _MAX_SHOWN} more")
    lines += [f"  {chain}" for chain in _chains(by_rank)]
    return [*lines, f"at fault: {_verdict(by_rank, silent, rank_to_host)}"]


def name_ranks(ranks: Sequence[int]) -> str:
    """Return `rank 3`, `ranks 3, 4` or `ranks 3, 4, ... (12 in all)`."""
    shown = ", ".join(str(rank) for rank in ranks[:_MAX_SHOWN])
    more = f", ... ({len(ranks)} in all)" if len(ranks) > _MAX_SHOWN else ""
    return f"{'rank' if len(ranks) == 1 else 'ranks'} {shown}{more}"


def read_deadline(environ: Mapping[str, str]) -> float:
    """Return the deadline of every wait in seconds, as `SPARSECOMM_DEADLINE` gives it; 0 is none.

    Raises:
        InputError: it is no number of seconds.
    """
    text = environ.get(VARIABLE, "")
    try:
        return check_deadline(float(text) if text else DEFAULT_S)
    except ValueError as err:
        raise InputError(f"{VARIABLE}={text!r} is no number of seconds; give one, or 0 for no deadline") from err


def check_deadline(seconds: float) -> float:
    """Return a deadline.

    Raises:
        InputError: it is negative or not finite.
    """
    if not 0 <= seconds < float("inf"):
        raise InputError(f"a deadline must be a number of seconds, or 0 for none, not {seconds}")
    return float(seconds)


def _chains(by_rank: Mapping[int, WaitReport]) -> Iterator[str]:
    """Yield who waits for whom, from ranks that nobody waits for down to one that does not wait, or in a circle."""
    seen: set[int] = set()
    waited_for = {peer for report in by_rank.values() for peer in report.waiting.peers}
    for start in sorted(by_rank, key=lambda rank: (rank in waited_for, rank)):
        chain = _chain(start, by_rank, seen)
        if len(chain) > 2:
            yield f"rank {chain[0]} waits for rank {chain[1]}" + "".join(
                f", itself waiting for rank {rank}" for rank in chain[2:]
            )


def _chain(start: int, by_rank: Mapping[int, WaitReport], seen: set[int]) -> list[int]:
    chain = [start]
    while chain[-1] in by_rank and chain[-1] not in seen:
        seen.add(chain[-1])
        peers = by_rank[chain[-1]].waiting.peers
        if not peers:
            break
        # A rank that itself says nothing explains more than one that waits.
        chain.append(next((peer for peer in peers if peer not in by_rank), peers[0]))
    return chain


def _verdict(by_rank: Mapping[int, WaitReport], silent: Sequence[int], rank_to_host: Sequence[str]) -> str:
    gone = [rank for rank in sorted(by_rank) if by_rank[rank].waiting.what == END]
    if gone and len(gone) < len(by_rank):
        return f"{_with_hosts(gone, rank_to_host)}: came to {END} while others wait"
    heard_hosts = {rank_to_host[rank] for rank in by_rank}
    silent_hosts = {rank_to_host[rank] for rank in silent}
    if not silent:
        return _no_one_silent(by_rank)
    if silent_hosts & heard_hosts or not heard_hosts:
        return f"{_with_hosts(silent, rank_to_host)}: nothing was heard; stopped, or busy with something else"
    if len(heard_hosts) == 1 and len(silent_hosts) > 1:
        return f"host {heard_hosts.pop()}: cut off from all others, none of which was heard"
    if len(heard_hosts) == len(silent_hosts) == 1:
        return f"the link between hosts {heard_hosts.pop()} and {silent_hosts.pop()}, or {name_ranks(silent)} there"
    names = ", ".join(sorted(silent_hosts))
    return f"{'hosts' if len(silent_hosts) > 1 else 'host'} {names} ({name_ranks(silent)}): nothing was heard; cut off?"


def _no_one_silent(by_rank: Mapping[int, WaitReport]) -> str:
    """Return the calls that ranks wait in, the fewest ranks first: those have most likely gone astray."""
    places: dict[str, list[int]] = {}
    for rank in sorted(by_rank):
        places.setdefault(by_rank[rank].waiting.what, []).append(rank)
    if len(places) == 1:
        return "a message was lost: all ranks wait in the same call"
    rarest = sorted(places.items(), key=lambda item: len(item[1]))
    return "all ranks wait, in different calls: " + "; ".join(
        f"{name_ranks(ranks)} in {what}" for what, ranks in rarest[:_MAX_SHOWN]
    )


def _with_hosts(ranks: Sequence[int], rank_to_host: Sequence[str]) -> str:
    if len(ranks) == 1:
        return f"rank {ranks[0]} on host {rank_to_host[ranks[0]]}"
    return f"{name_ranks(ranks)} on {', '.join(sorted({rank_to_host[rank] for rank in ranks}))}"
