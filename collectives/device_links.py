"""What rows on GPUs go by between the ranks of a job, level by level, found out by trying."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np

from sparsecomm.arrays import device_module
from sparsecomm.collectives.device_intake import Intake
from sparsecomm.collectives.in_place import near_levels
from sparsecomm.collectives.schedule import Message
from sparsecomm.collectives.transport.base import Transport, agreed
from sparsecomm.collectives.transport.ipc import first_refusal, refusal
from sparsecomm.collectives.transport.nccl import Nccl, nccl_refusal
from sparsecomm.collectives.wire import RowFormat
from sparsecomm.cost import CostModel
from sparsecomm.errors import InputError
from sparsecomm.plan import RankPlan

NAMES: Final = ("auto", "ipc", "nccl", "mpi", "pinned")
DeviceTransport = str | Sequence[str]
"""One of `NAMES` for all levels, or one for each."""

_LOG: Final = logging.getLogger("sparsecomm")


class Choice(NamedTuple):
    """What a level goes by, `ipc`, `nccl`, `mpi` or `pinned`, and why."""

    name: str
    why: str

    def __str__(self) -> str:
        return f"{self.name} ({self.why})"


class DeviceLinks:
    """What can be used between the GPUs of a job; every question is tried once, when it first matters.

    `auto` takes what should be fastest for a plan, at levels where rows on GPUs have been timed. Elsewhere it reads in
    place where ranks share memory, takes NCCL there if that is refused, and pinned memory between nodes.

    Args:
        transport: over the ranks.
        asked: what is to be used.
        num_levels: of the topology.
        cost: knows what was timed, the same on all ranks.

    Raises:
        InputError: `asked` is no transport of blocks on GPUs, or not one for each level.

    Source: inside a socket of Summit reading in place ran at 97 % of the links and NCCL at 80 to 90 %; between nodes
        staging in the host's memory ran at 40 to 42 of 50 GB/s and NCCL at 24 to 34 (Hidayetoglu, chart of
        Bisection_Bandwidth_Tester). Elsewhere it may be otherwise.
    """

    def __init__(
        self, transport: Transport, asked: DeviceTransport, num_levels: int, cost: CostModel | None = None
    ) -> None:
        self._transport, self._warned, self._cost = transport, False, cost
        self._nccl: Nccl | None = None
        self._refusals: dict[Callable[[Transport], str], str] = {}
        self._asked = (asked,) * num_levels if isinstance(asked, str) else tuple(asked)
        agreed(transport, lambda: _check(self._asked, num_levels))

    def choose(self, plan: RankPlan, form: RowFormat) -> tuple[Choice, ...]:
        """Return what each level of a plan goes by.

        Args:
            plan: of this rank.
            form: of the rows. It is the host that rounds them on their way.

        Raises:
            InputError: on all ranks, when NCCL, or MPI that reads GPUs, is asked for and cannot be used.

        Note: Collective over comm.
        """
        if any(form.rounds(level) for level in range(len(self._asked))):
            return (Choice("pinned", "rows are rounded on their way"),) * len(self._asked)
        near = near_levels(plan, self._transport, len(self._asked)) if {"auto", "ipc"} & {*self._asked} else 0
        measured = self._fastest(plan, form, near)
        return tuple(
            measured[level] if name == "auto" and level in measured else self._choice(name, level < near)
            for level, name in enumerate(self._asked)
        )

    def usable(self, plan: RankPlan, level: int) -> list[str]:
        """Return the transports that a level of a plan can go by.

        Note: Collective over comm.
        """
        near = near_levels(plan, self._transport, len(self._asked))
        return [name for name in NAMES[1:] if self._can(name, level < near)]

    def close(self) -> None:
        """Free what was made.

        Note: Collective over comm.
        """
        if self._nccl is not None:
            self._nccl.close()

    def nccl(self) -> Nccl:
        """Return NCCL over the ranks of the job.

        Note: Collective over comm, the first time.
        """
        self._nccl = self._nccl or Nccl(self._transport)
        return self._nccl

    def _fastest(self, plan: RankPlan, form: RowFormat, near: int) -> dict[int, Choice]:
        """Return what is predicted to be fastest at the levels where usable transports have been timed.

        Note: Collective over comm.
        """
        timed = self._cost.gpu_links if self._cost is not None else ()
        if not any(timed):
            return {}
        levels, found = len(self._asked), {}
        busiest = self._transport.reduce(np.concatenate([*plan.messages(levels), *plan.rows(levels)]), "max")
        messages, rows = busiest.reshape(2, 2, levels).max(axis=1)
        for level, names in enumerate(timed):
            told = int(messages[level]), int(rows[level]) * form.row_bytes[level]
            predicted = {name: self._gpu_s(level, name, *told) for name in names if self._can(name, level < near)}
            if predicted:
                best = min(predicted, key=lambda name: predicted[name])
                shown = ", ".join(f"{name} {seconds:.3g} s" for name, seconds in predicted.items())
                found[level] = Choice(best, f"predicted by what was measured: {shown}")
        return found

    def _gpu_s(self, level: int, name: str, messages: int, num_bytes: int) -> float:
        assert self._cost is not None, "nothing was timed"
        return self._cost.gpu_s(level, name, messages, num_bytes)

    def _can(self, name: str, near: bool) -> bool:
        """Return whether a level can go by a transport.

        Note: Collective over comm, the first time.
        """
        if name == "ipc":
            return near and not self._refusal(_no_ipc)
        return name == "pinned" or not self._refusal(nccl_refusal if name == "nccl" else _no_mpi)

    def _choice(self, name: str, near: bool) -> Choice:
        if name == "pinned":
            return Choice(name, "as asked")
        if name == "nccl":
            self.nccl()  # refused here or never
            return Choice(name, "as asked")
        if name == "mpi":
            why = self._refusal(_no_mpi)
            if why:
                raise InputError(f"MPI is given no memory of GPUs: {why}; leave the choice to auto, or take pinned")
            return Choice(name, "as asked")
        if not near:
            return Choice("pinned", "ranks of different nodes share no memory")
        why = self._refusal(_no_ipc)
        if not why:
            return Choice("ipc", "as asked" if name == "ipc" else "ranks read each other's memory")
        self._warn(why)
        other = "nccl" if name == "auto" and not self._refusal(nccl_refusal) else "pinned"
        return Choice(other, f"memory of other ranks cannot be read: {why}")

    def _refusal(self, ask: Callable[[Transport], str]) -> str:
        if ask not in self._refusals:
            self._refusals[ask] = ask(self._transport)
        return self._refusals[ask]

    def _warn(self, why: str) -> None:
        if not self._warned and self._transport.rank == 0:
            _LOG.warning("GPUs of a node cannot read each other's memory, so that rows are copied: %s", why)
        self._warned = True


def _no_ipc(transport: Transport) -> str:
    return refusal(transport, _read)


def _no_mpi(transport: Transport) -> str:
    return first_refusal(agreed(transport, transport.device_refusal), transport)


def _read(begin: int) -> int:
    """Return the int64 at an address, read as rows are."""
    found = device_module().empty((1, 1), np.int64)
    none = np.zeros(1, dtype=np.int64)
    Intake(found, [Message(0, 0, 0, none, none == 0)], [begin], [none], adds=False).enqueue()
    return int(found.get()[0, 0])


def _check(asked: Sequence[str], num_levels: int) -> None:
    unknown = [name for name in asked if name not in NAMES]
    if unknown:
        raise InputError(f"no transport {unknown[0]!r} of blocks on GPUs; there are {', '.join(NAMES)}")
    if len(asked) != num_levels:
        raise InputError(
            f"{len(asked)} transports of blocks on GPUs for {num_levels} levels; give one, or one for each"
        )
