"""Planning in a job against planning offline: bodies that run on every rank of any transport."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array

from sparsecomm.collectives.strategies import candidates, choose
from sparsecomm.collectives.strategy import get_strategy, strategy_names
from sparsecomm.layout import Layout, Layouts
from sparsecomm.pattern import Pattern, Remote
from sparsecomm.plan import fingerprint_of
from sparsecomm.table import Offline, Router
from sparsecomm.topology import Topology
from sparsecomm.volume import bounds_of
from tests.planning_oracles import machine, random_case

ROUTED = [name for name in strategy_names() if name != "tree"]


class Input(NamedTuple):
    """A whole matrix in new numbering, its layouts and the machine; a body uses its own rows and compares the rest."""

    matrix: csr_array[Any]
    layouts: Layouts
    topology: Topology


def topologies(num_ranks: int) -> list[Topology]:
    """Return machines of `num_ranks` ranks: one node, one rank a node, uneven, interleaved, with sockets."""
    ranks = np.arange(num_ranks)
    nodes = [ranks * 0, ranks, (ranks + 1) // 3, ranks % 2]
    sockets = machine((ranks // 2).tolist(), (ranks // 4).tolist())
    return [*(Topology.from_nodes(node) for node in nodes), sockets.topology]


def random_inputs(num_ranks: int, num: int = 1) -> Iterator[Input]:
    """Yield square and rectangular patterns with ranks that own nothing, on every machine of `num_ranks` ranks."""
    for number, topology in enumerate(topologies(num_ranks) * num):
        case = random_case(100 + number, machine([0] * num_ranks))
        yield Input(case.matrix, case.layouts, topology)


def block_inputs(matrix: csr_array[Any], num_ranks: int) -> Iterator[Input]:
    """Yield `matrix` split into blocks, on every machine of `num_ranks` ranks."""
    layouts = Layouts(*(Layout.block(size, num_ranks) for size in matrix.shape))
    for topology in topologies(num_ranks):
        yield Input(matrix, layouts, topology)


def check_remote(router: Router, given: Input) -> None:
    """Remote nonzeros, their transpose and both patterns are those of the whole matrix."""
    whole, mine = Remote.of(given.matrix, given.layouts), _own_remote(router, given)
    offline = Offline(router.num_ranks)
    rank = router.held.start
    for own, all_ranks in (
        (mine.nonzeros, whole.nonzeros),
        (mine.transpose(router).nonzeros, whole.transpose(offline).nonzeros),
        (Pattern.of_cols(mine).ghosts, Pattern.of_cols(whole).ghosts),
        (Pattern.of_rows(mine, router).ghosts, Pattern.of_rows(whole, offline).ghosts),
    ):
        expected = all_ranks.take(all_ranks.rank == rank)
        assert list(own.columns) == list(expected.columns)
        assert not differences([own.rank, *own.columns.values()], [expected.rank, *expected.columns.values()])


def check_products(router: Router, given: Input) -> None:
    """Every strategy makes in the job, array by array, what it makes offline."""
    whole, mine = Remote.of(given.matrix, given.layouts), _own_remote(router, given)
    for name in ROUTED:
        product = get_strategy(name).build(whole, given.topology)
        part = get_strategy(name).build_rank(mine, given.topology, router)
        found = differences(part, product.rank(router.held.start, whole))
        assert not found, f"{name} on {given.topology}: {found}"
        assert fingerprint_of(_all_hashes(router, part.hash())) == product.fingerprint()
        assert part.volume(given.topology, router) == product.volume()


def check_counts(router: Router, given: Input) -> None:
    """Volumes, bounds and the choice of a strategy are on every rank what they are offline."""
    whole, mine = Remote.of(given.matrix, given.layouts), _own_remote(router, given)
    offline = Offline(router.num_ranks)
    found = candidates(mine, given.topology, router=router)
    expected = candidates(whole, given.topology, router=offline)
    counted = [name for name in ROUTED if name != "cover-greedy"]
    assert ("tree" in found) <= (router.num_ranks == 1)  # one rank holds all rows, and may plan as if offline
    assert [name for name in found if name != "tree"] == [name for name in expected if name != "tree"] == counted
    for name, candidate in found.items():
        different = differences(candidate.volume, expected[name].volume)
        assert not different, f"{name} on {given.topology}: {different}"
        assert candidate.estimate == expected[name].estimate
    assert choose(found).name == choose({name: expected[name] for name in found}).name
    assert bounds_of(mine, given.topology, router) == bounds_of(whole, given.topology, offline)


def differences(one: Any, other: Any, place: str = "") -> list[str]:
    """Return where two plans differ: in an array, in its dtype, or in anything else."""
    if isinstance(one, np.ndarray):
        same = isinstance(other, np.ndarray) and one.dtype == other.dtype and np.array_equal(one, other)
        return [] if same else [f"{place}: {one!r} is not {other!r}"]
    if isinstance(one, tuple | list) and len(one) == len(other):
        return [
            found
            for i, pair in enumerate(zip(one, other, strict=True))
            for found in differences(*pair, f"{place}[{i}]")
        ]
    if is_dataclass(one):
        assert type(one) is type(other)
        pairs = [(field.name, getattr(one, field.name), getattr(other, field.name)) for field in fields(one)]
        return [found for name, a, b in pairs for found in differences(a, b, f"{place}.{name}")]
    return [] if one == other else [f"{place}: {one!r} is not {other!r}"]


def _own_remote(router: Router, given: Input) -> Remote:
    (rank,) = router.held
    rows = given.layouts.rows.own_rows(rank)
    return Remote.of(given.matrix[rows.start : rows.stop], given.layouts, router.held)


def _all_hashes(router: Router, own: int) -> Any:
    """Return the hashes of all ranks; they are unsigned, `collect` moves signed numbers."""
    return router.collect(np.array([own], dtype=np.uint64).view(np.int64)).view(np.uint64)
