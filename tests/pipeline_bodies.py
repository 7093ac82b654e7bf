"""What products in chunks and products one after the other must do: collective over the ranks, for threads and MPI.

Their bits are those of a product that is made whole and alone, which other tests hold against scipy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from sparsecomm.apps.matrix import DistMatrix
from sparsecomm.apps.transposed import TransposedMatrix
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.errors import InputError
from tests.matrix_cases import Case, Dense, cases, rank_product, whole_product
from tests.transport_wrappers import Late

Operator = DistMatrix | TransposedMatrix


def pairs(num_ranks: int) -> list[tuple[Case, str]]:
    """Return square and rectangular matrices with plans that gather, scatter, and do both in turn."""
    square, rectangular = cases(num_ranks)[:2]
    both = [(square, "reduce"), (rectangular, "via-hierarchical")]
    return both if num_ranks > 2 else [(square, "direct"), *both]


def made(case: Case, way: str, transport: Transport, **options: Any) -> DistMatrix:
    """Return the matrix of a case with values that sums round."""
    values = np.random.default_rng(5).standard_normal(case.matrix.nnz)
    rounding = replace(case, matrix=csr_array((values, case.matrix.indices, case.matrix.indptr), case.matrix.shape))
    product = rank_product(case, way, transport.rank)
    return DistMatrix(rounding.rows(transport.rank), product, case.topology, transport, **options)


def blocks(operator: Operator, side: str, case: Case, rank: int, widths: tuple[int, ...]) -> list[Dense]:
    """Return this rank's rows of random blocks; width 0 is a vector."""
    rng, rows = np.random.default_rng(6), operator.shape[1]
    shapes = [(rows, width) if width else (rows,) for width in widths]
    return [case.mine(rng.standard_normal(shape), side, rank) for shape in shapes]


def sides(matrix: DistMatrix) -> Iterator[tuple[Operator, str]]:
    yield matrix, "cols"
    yield matrix.T, "rows"


def check_chunks(transport: Transport) -> None:
    """Chunks of unlike widths, more chunks than columns, and vectors; what they move is what the plan says."""
    late = Late(transport, 1)
    for case, way in pairs(transport.num_ranks):
        volume = whole_product(case, way).volume()
        with made(case, way, transport) as whole, made(case, way, late, chunks=3) as cut:  # type: ignore[arg-type]
            for (one, side), (other, _) in zip(sides(whole), sides(cut), strict=True):
                for x in blocks(one, side, case, transport.rank, (7, 1, 0)):
                    np.testing.assert_array_equal(other @ x, one @ x, err_msg=f"{case.name}, {way}")
                before = cut.executed
                x = other.empty(7)
                x[...] = 1
                other @ x
                done = cut.executed - before
                for sent, planned in (
                    (done.rows_sent, 3 * volume.rows),
                    (done.messages_sent, 3 * volume.messages),
                    (done.bytes_sent + done.bytes_loaded, volume.rows * 7 * 8),
                ):
                    np.testing.assert_array_equal(transport.reduce(sent, "sum"), planned)


def check_one_after_the_other(transport: Transport) -> None:
    """Blocks of any width, refilled as soon as their product is there; who leaves early can go on with the matrix."""
    late = Late(transport, 2)
    for case, way in pairs(transport.num_ranks):
        with made(case, way, late) as matrix:  # type: ignore[arg-type]
            for operator, side in sides(matrix):
                xs = blocks(operator, side, case, transport.rank, (4, 4, 0, 4, 4))
                expected = [operator @ x for x in xs]
                for taken in (0, 2):
                    some = operator.products(xs)
                    for _, wanted in zip(range(taken), expected, strict=False):
                        np.testing.assert_array_equal(next(some), wanted)
                    del some
                assert list(operator.products([])) == []
                for wanted, x, found in zip(expected, xs, operator.products(xs), strict=True):
                    np.testing.assert_array_equal(found, wanted, err_msg=f"{case.name}, {way}")
                    x[...] = np.nan


def check_adjoint(transport: Transport) -> None:
    """Complex blocks one after the other with A.H."""
    case = cases(transport.num_ranks)[0]
    with made(case, "direct", transport, chunks=2) as matrix:
        y = (1 + 2j) * blocks(matrix.T, "rows", case, transport.rank, (2,))[0]
        np.testing.assert_array_equal(next(matrix.H.products([y])), matrix.H @ y)


def check_refused(transport: Transport) -> None:
    case = cases(transport.num_ranks)[0]
    for chunks in (0, True, 1.5, "2"):
        with pytest.raises(InputError, match="chunks must be"):
            made(case, "direct", transport, chunks=chunks if transport.rank == transport.num_ranks - 1 else 1)
    with made(case, "direct", transport) as matrix, pytest.raises(InputError, match="owns"):
        list(matrix.products([np.ones((99, 2))]))


BODIES: tuple[Callable[[Transport], None], ...] = tuple(
    body for name, body in list(globals().items()) if name.startswith("check_")
)
