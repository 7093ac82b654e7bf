"""Strategy `reduce`: every product is formed by the owner of its column, and partial rows are summed on their way."""

from __future__ import annotations

from sparsecomm.collectives.copies import Copies
from sparsecomm.collectives.hierarchical import hierarchical_copies
from sparsecomm.collectives.strategy import MANY, Schedule, Strategy, register_strategy, up_to
from sparsecomm.pattern import Pattern, Remote
from sparsecomm.table import Router
from sparsecomm.topology import Topology


def _schedule(remote: Remote, topology: Topology, router: Router) -> Schedule:
    scatter = hierarchical_copies(Pattern.of_rows(remote, router), topology, router)
    return Schedule(Copies.none(Pattern.empty(remote.layouts.cols)), scatter, remote.nonzeros["col_rank"])


REDUCE = register_strategy(Strategy("reduce", _schedule, up_to(MANY), row_mode=True))
