"""Counting every strategy, choosing one, building it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sparsecomm.collectives.strategy import Strategy, get_strategy, strategy_names
from sparsecomm.cost import CostModel, Estimate
from sparsecomm.errors import InputError
from sparsecomm.pattern import Remote
from sparsecomm.product import Product
from sparsecomm.table import Offline, Router
from sparsecomm.topology import Topology
from sparsecomm.volume import Volume

PLAIN: Final = "direct"
WORTH_IT: Final = 0.9
"""What the time of another strategy over that of the plain exchange must not exceed for `auto` to take it.

Predictions cannot tell smaller gains: where they promised a few per cent, products of meshes took 7 to 8 % longer on a
virtual cluster (benchmarks/README.md), because a rank that hands rows on may be busy when they come.
"""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A strategy with what it would move and how long that should take."""

    strategy: Strategy
    volume: Volume
    estimate: Estimate


def candidates(
    remote: Remote,
    topology: Topology,
    *,
    width: int = 64,
    itemsize: int = 4,
    max_rank_nnz: int = 0,
    cost: CostModel | None = None,
    router: Router | None = None,
    asked: str | Strategy = "auto",
    names: Sequence[str] = (),
) -> dict[str, Candidate]:
    """Count every registered strategy, or those of `names`, but those passed over, and predict its time.

    Note: Collective over comm.
    """
    cost, router = cost or CostModel(topology), router or Offline(topology.num_ranks)
    late = passed_over(remote, topology, router, asked)
    found = {}
    for name in names or strategy_names():
        if name in late:
            continue
        strategy = get_strategy(name)
        schedule = strategy.make(remote, topology, router)
        volume = strategy.volume(schedule, remote, topology, router)
        found[name] = Candidate(strategy, volume, cost.estimate(volume, width, itemsize, max_rank_nnz))
        if choose(found, asked) is strategy:
            remote.keep((strategy, topology), schedule)  # to be built next, as likely as not
        del schedule  # before the next one is made
    return found


def passed_over(remote: Remote, topology: Topology, router: Router, asked: str | Strategy = "auto") -> dict[str, str]:
    """Return why strategies are not counted: they cannot be made, or would take too long and are not the one asked for.

    Note: Collective over comm.
    """
    reasons = {}
    for name in strategy_names():
        strategy = get_strategy(name)
        refused = strategy.refuses(remote, topology, router)
        late = None if refused or name == asked else strategy.too_much(remote, topology, router)
        if refused or late:
            reasons[name] = refused or f"{late}; ask for it by name"
    return reasons


def allowed(found: dict[str, Candidate], row_mode: bool) -> dict[str, Candidate]:
    """Return the candidates of a mode: without `row_mode` those that form all products at the owner of the row."""
    return {name: candidate for name, candidate in found.items() if row_mode or not candidate.strategy.row_mode}


def fitting(
    found: dict[str, Candidate], row_bytes: int, memory_bytes: int, asked: str = "auto"
) -> tuple[dict[str, Candidate], dict[str, str]]:
    """Return the candidates whose slots and message buffers fit a rank, and why the others do not.

    Args:
        found: what was counted.
        row_bytes: of a row of X.
        memory_bytes: that a rank has for slots and buffers; 0 is no limit.
        asked: a name that must be among those that fit, or `auto` for any.

    Raises:
        InputError: it is not, or none fits.
    """
    needs = {name: candidate.volume.max_rank_buffer * row_bytes for name, candidate in found.items()}
    large = {
        name: f"slots and buffers of the fullest rank take {need:,} bytes, more than the {memory_bytes:,} allowed"
        for name, need in needs.items()
        if need > memory_bytes > 0
    }
    if asked in large or len(large) == len(found):
        name = asked if asked in large else min(needs, key=lambda one: needs[one])
        raise InputError(f"strategy {name}: {large[name]}; give more memory, a smaller width or more ranks")
    return {name: candidate for name, candidate in found.items() if name not in large}, large


def choose(found: dict[str, Candidate], strategy: str | Strategy = "auto", *, row_mode: bool = True) -> Strategy:
    """Return the strategy asked for; `auto` is the one predicted fastest, the first registered where they tie.

    The plain exchange is kept unless the fastest is predicted to take at most `WORTH_IT` times as long.

    Without `row_mode` it must form all products at the owner of the row: values that change at every step would have to
    move to anybody else at every step.

    Raises:
        InputError: there is no strategy of that name, or it needs the row mode that is off.
    """
    if strategy == "auto":
        return _fastest(allowed(found, row_mode)).strategy
    chosen = get_strategy(strategy)
    if chosen.row_mode and not row_mode:
        raise InputError(
            f"strategy {chosen.name} forms products away from the owner of the row, and row mode is off; "
            "turn it on, or take another strategy"
        )
    return chosen


def _fastest(found: dict[str, Candidate]) -> Candidate:
    best, plain = min(found.values(), key=lambda candidate: candidate.estimate.total_s), found.get(PLAIN)
    kept = plain and plain.estimate.total_s * WORTH_IT < best.estimate.total_s
    return plain if plain and kept else best


def make_product(
    remote: Remote,
    topology: Topology,
    strategy: str | Strategy = "auto",
    *,
    width: int = 64,
    itemsize: int = 4,
    cost: CostModel | None = None,
    row_mode: bool = True,
) -> Product:
    """Make and prove the product of all ranks in one process.

    Args:
        remote: the remote nonzeros of the whole matrix.
        topology: the machine; it must have as many ranks as the layouts of `remote`.
        strategy: a name, a `Strategy`, or `auto`, see `choose`.
        width: columns of X that `auto` predicts for.
        itemsize: bytes of an entry.
        cost: the model that predicts; the postal model of `topology` by default.
        row_mode: False leaves out strategies that form products away from the owner of the row; for values that change
            at every step.

    Raises:
        InputError: the ranks do not match, or there is no such strategy.
        PlanError: the strategy made a plan that breaks a rule.

    Example:
        >>> from scipy.sparse import random_array
        >>> from sparsecomm.layout import Layout, Layouts
        >>> layout = Layout.block(100, 4)
        >>> A = random_array((100, 100), density=0.05, format="csr", random_state=0)
        >>> product = make_product(Remote.of(A, Layouts(layout, layout)), Topology.parse("uniform:2x2"))
        >>> product.num_ranks
        4
    """
    check_ranks(remote, topology)
    found = {}
    if strategy == "auto":
        found = candidates(remote, topology, width=width, itemsize=itemsize, cost=cost)
    chosen = choose(found, strategy, row_mode=row_mode)
    product = chosen.build(remote, topology)
    product.verify(remote)
    return product


def check_ranks(remote: Remote, topology: Topology) -> None:
    """Refuse layouts made for another number of ranks.

    Raises:
        InputError: the numbers differ.
    """
    parts = remote.layouts.rows.num_ranks
    if parts != topology.num_ranks:
        raise InputError(
            f"the layout has {parts} parts but topology {topology.name} has {topology.num_ranks} ranks; "
            f"pass a topology with {parts} ranks or partition for {topology.num_ranks}"
        )
