"""Small matrices, their layouts and machines, and every way of forming their product.

Values are small whole numbers, so that sums are exact in any order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product as product_of
from threading import Lock
from typing import Any

import numpy as np
from scipy.sparse import csr_array, random_array

from sparsecomm.apps.matrix import DistMatrix
from sparsecomm.collectives.copies import build_plan
from sparsecomm.collectives.direct import direct_copies
from sparsecomm.collectives.hierarchical import hierarchical_copies
from sparsecomm.collectives.strategy import get_strategy
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.layout import Layout, Layouts
from sparsecomm.matrix_store import renumber
from sparsecomm.pattern import Pattern, Remote
from sparsecomm.product import Product, RankProduct
from sparsecomm.table import Offline
from sparsecomm.topology import Topology
from tests.planning_bodies import topologies

Dense = np.ndarray[Any, Any]
STRATEGIES = ("direct", "hierarchical", "reduce", "relay")


@dataclass(frozen=True, eq=False)
class Case:
    """A whole matrix in original numbering, where its rows and columns live, and the machine."""

    name: str
    matrix: csr_array[Any]
    layouts: Layouts
    topology: Topology

    def rows(self, rank: int) -> csr_array[Any]:
        """Return the rows of a rank, in new numbering."""
        own = self.layouts.rows.own_rows(rank)
        return renumber(self.matrix, self.layouts)[own.start : own.stop]

    def remote(self) -> Remote:
        return Remote.of(renumber(self.matrix, self.layouts), self.layouts)

    def mine(self, whole: Dense, side: str, rank: int) -> Dense:
        """Return a rank's rows of a block given in original numbering, by the definition of a layout."""
        layout: Layout = getattr(self.layouts, side)
        return whole[layout.new_to_old()[layout.own_rows(rank)]]


def whole_numbers(shape: tuple[int, ...], dtype: Any, seed: int) -> Dense:
    rng = np.random.default_rng(seed)
    drawn = rng.integers(-4, 5, shape)
    return (drawn + 1j * rng.integers(-4, 5, shape) if np.dtype(dtype).kind == "c" else drawn).astype(dtype)


def sparse(shape: tuple[int, int], density: float, dtype: Any, seed: int) -> csr_array[Any]:
    made = random_array(shape, density=density, format="csr", random_state=np.random.default_rng(seed))
    return csr_array((whole_numbers((made.nnz,), dtype, seed), made.indices, made.indptr), shape=shape)


def owners(num_rows: int, num_ranks: int, seed: int) -> Layout:
    """Give rows to ranks at random, and none to one of several ranks."""
    rng = np.random.default_rng(seed)
    takers = np.arange(num_ranks)[np.arange(num_ranks) != 1] if num_ranks > 2 else np.arange(num_ranks)
    return Layout.from_owners(rng.choice(takers, num_rows).astype(np.int32), num_ranks)


_LOCK = Lock()  # threads that ask for the same product at the same time shall make it once


def cases(num_ranks: int, dtype: Any = np.float64) -> list[Case]:
    """Return permuted, rectangular, empty and tiny matrices on nodes of different sizes; the same ones each time."""
    with _LOCK:
        return _cases(num_ranks, np.dtype(dtype))


@cache
def _cases(num_ranks: int, dtype: np.dtype[Any]) -> list[Case]:
    return list(_made(num_ranks, dtype))


def _made(num_ranks: int, dtype: np.dtype[Any]) -> Iterator[Case]:
    one_node, _, uneven, interleaved, sockets = topologies(num_ranks)
    shuffled = owners(40, num_ranks, seed=1)
    yield Case("permuted", sparse((40, 40), 0.15, dtype, 1), Layouts(shuffled, shuffled), uneven)
    sides = Layouts(owners(35, num_ranks, seed=2), owners(23, num_ranks, seed=3))
    yield Case("rectangular", sparse((35, 23), 0.2, dtype, 2), sides, sockets)
    blocks = Layouts(Layout.block(18, num_ranks), Layout.block(31, num_ranks))
    yield Case("blocks", sparse((18, 31), 0.3, dtype, 3), blocks, interleaved)
    hollow = sparse((30, 30), 0.2, dtype, 4).toarray()
    hollow[5:22], hollow[:, 3:9] = 0, 0
    yield Case("empty rows", csr_array(hollow), Layouts(*[Layout.block(30, num_ranks)] * 2), uneven)
    yield Case("tiny", sparse((2, 2), 1.0, dtype, 5), Layouts(*[Layout.block(2, num_ranks)] * 2), uneven)
    yield Case("no nonzeros", csr_array((9, 9), dtype=dtype), Layouts(*[Layout.block(9, num_ranks)] * 2), one_node)


def via_product(case: Case, copies: str, seed: int = 0) -> Product:
    """Have every remote nonzero multiplied by a rank drawn at random: most have neither its row nor its column."""
    remote, offline = case.remote(), Offline(case.topology.num_ranks)
    num_ranks, nonzeros = case.topology.num_ranks, remote.nonzeros
    multiplier = np.random.default_rng(seed).integers(0, num_ranks, len(nonzeros)).astype(np.int32)
    plans = []
    for name, layout in (("col", case.layouts.cols), ("row", case.layouts.rows)):
        order = np.argsort(multiplier, kind="stable")
        pattern = Pattern.of_requests(multiplier[order], nonzeros[name][order], layout)
        made = (
            direct_copies(pattern, case.topology)
            if copies == "direct"
            else hierarchical_copies(pattern, case.topology, offline)
        )
        plans.append(build_plan(made, case.topology, offline))
    product = Product("via", *plans, multiplier, case.layouts)
    product.verify(remote)
    return product


@cache
def _product(case: Case, way: str) -> tuple[Product, Remote]:
    remote = case.remote()
    if way.startswith("via-"):
        return via_product(case, way.partition("-")[2]), remote
    return get_strategy(way).build(remote, case.topology), remote


def whole_product(case: Case, way: str) -> Product:
    with _LOCK:
        return _product(case, way)[0]


def rank_product(case: Case, way: str, rank: int) -> RankProduct:
    with _LOCK:
        product, remote = _product(case, way)
    return product.rank(rank, remote)


def dist(case: Case, strategy: str, transport: Transport) -> DistMatrix:
    """Make the matrix from a product planned offline."""
    product = rank_product(case, strategy, transport.rank)
    return DistMatrix(case.rows(transport.rank), product, case.topology, transport)


WAYS = (*STRATEGIES, "via-direct", "via-hierarchical")


def pairs(num_ranks: int) -> list[tuple[Case, str]]:
    """Return every case with every way of a product, but for the hollow cases, where two say it all."""
    full, hollow = cases(num_ranks)[:3], cases(num_ranks)[3:]
    return [*product_of(full, WAYS), *product_of(hollow, ("hierarchical", "reduce"))]
