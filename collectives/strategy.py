"""Strategies: named ways to make a Product, each with `count` and `build`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Final

import numpy as np

from sparsecomm.collectives.copies import Copies, build_plan, build_rank_plan
from sparsecomm.errors import InputError
from sparsecomm.pattern import Pattern, Remote
from sparsecomm.product import Product, RankProduct
from sparsecomm.table import Offline, Router
from sparsecomm.topology import Topology
from sparsecomm.typing import IntRank
from sparsecomm.volume import Volume, volume_of


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """What a strategy decides: which rows travel, by what way, and who multiplies.

    Args:
        gather: copies of rows of X.
        scatter: copies that, run backwards, carry partial rows of Y.
        multiplier: (num_remote,) int32, the rank that multiplies each remote nonzero, on the owner of its row.
    """

    gather: Copies
    scatter: Copies
    multiplier: IntRank


Spread = Callable[[Pattern, Topology, Router], Copies]
"""Schedules the ghosts of a pattern."""


MANY: Final = 30_000_000
"""Remote nonzeros beyond which striped strategies stand for those that send the same network rows in owner's lanes."""

TooMuch = Callable[[Remote, Topology, Router], str | None]


def up_to(most: int) -> TooMuch:
    """Return the rule to count a strategy unasked for no more than `most` remote nonzeros on all ranks together."""

    def too_much(remote: Remote, topology: Topology, router: Router) -> str | None:
        found = int(router.reduce(np.array([len(remote.nonzeros)], dtype=np.int64), "sum")[0])
        return f"{found:,} remote nonzeros, counted unasked up to {most:,}" if found > most else None

    return too_much


@dataclass(frozen=True, slots=True, eq=False)
class Strategy:
    """A strategy, written once for planning offline and in a job.

    Args:
        name: what the user calls it.
        schedule: makes the schedule of the held ranks from their remote nonzeros.
        too_much: says why counting it would take too long to be done unasked, None where it would not.
        refuses: says why it cannot be made at all, None where it can.
        row_mode: whether products may be formed away from the owner of the row, so that values of A have to move there.
        offline: whether it is planned only where one process holds the whole matrix.
    """

    name: str
    schedule: Callable[[Remote, Topology, Router], Schedule]
    too_much: TooMuch = lambda remote, topology, router: None
    refuses: TooMuch = lambda remote, topology, router: None
    row_mode: bool = False
    offline: bool = False

    def count(self, remote: Remote, topology: Topology, router: Router | None = None) -> Volume:
        """Return what the product would move, without numbering its slots.

        Raises:
            InputError: on every rank, when the strategy cannot be made here.

        Note: Collective over comm.
        """
        router = router or Offline(topology.num_ranks)
        return self.volume(self.make(remote, topology, router), remote, topology, router)

    def build(self, remote: Remote, topology: Topology) -> Product:
        """Make the product of all ranks in one process.

        Raises:
            InputError: the strategy cannot be made here.
        """
        router = Offline(topology.num_ranks)
        schedule = remote.take((self, topology)) or self.make(remote, topology, router)
        gather, scatter = (build_plan(side, topology, router) for side in (schedule.gather, schedule.scatter))
        relays = self._relays(schedule, remote, router)
        return Product(self.name, gather, scatter, schedule.multiplier, remote.layouts, relays)

    def build_rank(self, remote: Remote, topology: Topology, router: Router) -> RankProduct:
        """Make this rank's part of the product from this rank's remote nonzeros.

        Raises:
            InputError: on every rank, when the strategy cannot be made here.

        Note: Collective over comm.
        """
        schedule = remote.take((self, topology)) or self.make(remote, topology, router)
        gather, scatter = (build_rank_plan(side, router) for side in (schedule.gather, schedule.scatter))
        relays = self._relays(schedule, remote, router)
        return RankProduct(self.name, gather, scatter, schedule.multiplier, remote.layouts, relays)

    def make(self, remote: Remote, topology: Topology, router: Router) -> Schedule:
        """Make the schedule of the held ranks.

        Raises:
            InputError: on every rank, when the strategy cannot be made here.

        Note: Collective over comm.
        """
        reason = self.refuses(remote, topology, router)
        if reason:
            raise InputError(f"strategy {self.name}: {reason}")
        return self.schedule(remote, topology, router)

    def volume(self, schedule: Schedule, remote: Remote, topology: Topology, router: Router) -> Volume:
        """Count what a schedule that `make` made moves.

        Note: Collective over comm.
        """
        moves = [schedule.gather.moves(router, False), schedule.scatter.moves(router, True)]
        return volume_of(moves, topology, router, in_turn=self._relays(schedule, remote, router))

    def _relays(self, schedule: Schedule, remote: Remote, router: Router) -> bool:
        """Say whether anybody multiplies a nonzero of which it owns neither row nor column.

        Note: Collective over comm.
        """
        if not self.row_mode:
            return False
        by, table = schedule.multiplier, remote.nonzeros
        third = bool(((by != table.rank) & (by != table["col_rank"])).any())
        return bool(router.reduce(np.array([third]), "max")[0])


# One file each, which registers itself. Simplest first: where predictions tie, `auto` takes the first of this order,
# which must not depend on what was imported before.
_BUILT_IN: Final = (
    "direct",
    "hierarchical",
    "reduce",
    "cover",
    "relay",
    "direct-cover",
    "rank-cover",
    "striped",
    "cover-striped",
    "cover-balanced",
    "allgather",
    "hybrid",
    "tree",
    "cover-greedy",
)
_STRATEGIES: dict[str, Strategy] = {}


def register_strategy(strategy: Strategy) -> Strategy:
    """Add a strategy under its name.

    Raises:
        ValueError: the name is taken.
    """
    if strategy.name in _STRATEGIES:
        raise ValueError(f"a strategy named {strategy.name!r} is registered already")
    _STRATEGIES[strategy.name] = strategy
    return strategy


def strategy_names() -> list[str]:
    """Return the names of the strategies: those of the library, then the others as they were registered."""
    for name in _BUILT_IN:
        import_module(f"sparsecomm.collectives.{name.replace('-', '_')}")
    return [*_BUILT_IN, *(name for name in _STRATEGIES if name not in _BUILT_IN)]


def is_built_in(*strategies: str | Strategy) -> bool:
    """Say whether all of these are strategies of the library, which a name stands for in every process."""
    names = [one for one in strategies if isinstance(one, str)]
    others = [one for one in strategies if isinstance(one, Strategy)]
    return {*names, *(one.name for one in others)} <= {*_BUILT_IN} and all(
        _STRATEGIES.get(one.name) is one for one in others
    )


def get_strategy(strategy: str | Strategy) -> Strategy:
    """Return the strategy of that name, or the one given.

    Raises:
        InputError: there is none of that name.
    """
    if isinstance(strategy, Strategy):
        return strategy
    names = strategy_names()
    if strategy not in names:
        raise InputError(f"unknown strategy {strategy!r}; give one of auto, {', '.join(names)}")
    return _STRATEGIES[strategy]
