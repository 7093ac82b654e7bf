"""The distributed matrix with one thread per rank."""

from __future__ import annotations

import pytest

from sparsecomm.collectives.transport.local import run_local
from tests import matrix_bodies

RANKS = (1, 2, 3, 4, 7)


@pytest.mark.parametrize("num_ranks", RANKS)
@pytest.mark.parametrize("body", matrix_bodies.BODIES, ids=lambda body: body.__name__)
def test_body(body: matrix_bodies.Callable[[matrix_bodies.Transport], None], num_ranks: int) -> None:
    run_local(num_ranks, body, deadline_s=200)


SHARED = (
    matrix_bodies.check_complex,
    matrix_bodies.check_copies_are_counted,
    matrix_bodies.check_counts_are_planned,
    matrix_bodies.check_in_place,
    matrix_bodies.check_new_values,
    matrix_bodies.check_repeats,
)


@pytest.mark.parametrize("body", SHARED, ids=lambda body: body.__name__)
def test_body_in_shared_memory(body: matrix_bodies.Callable[[matrix_bodies.Transport], None]) -> None:
    run_local(4, body, deadline_s=200, num_shared=1)
