"""Products in chunks and one after the other with one thread per rank."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sparsecomm.apps.host_product import cut_width
from sparsecomm.collectives.transport.local import run_local
from tests import pipeline_bodies
from tests.matrix_cases import cases

RANKS = (1, 2, 3, 4, 7)


@pytest.mark.parametrize("num_ranks", RANKS)
@pytest.mark.parametrize("body", pipeline_bodies.BODIES, ids=lambda body: body.__name__)
def test_body(body: pipeline_bodies.Callable[[pipeline_bodies.Transport], None], num_ranks: int) -> None:
    run_local(num_ranks, body, deadline_s=200)


@pytest.mark.parametrize("body", pipeline_bodies.BODIES[:2], ids=lambda body: body.__name__)
def test_body_in_shared_memory(body: pipeline_bodies.Callable[[pipeline_bodies.Transport], None]) -> None:
    run_local(4, body, deadline_s=200, num_shared=1)


def test_failure_ends_the_job() -> None:
    """A rank that fails between chunks takes the others along."""

    def body(transport: Any) -> None:
        case = cases(3)[0]
        with pipeline_bodies.made(case, "direct", transport, chunks=3) as matrix:
            x = pipeline_bodies.blocks(matrix, "cols", case, transport.rank, (6,))[0]
            matrix @ x
            if transport.rank == 0:
                raise RuntimeError("the reason")
            for _ in range(100):
                matrix @ x

    with pytest.raises(RuntimeError, match="the reason"):
        run_local(3, body, deadline_s=200)


@pytest.mark.parametrize(
    ("width", "chunks", "widths"), [(7, 3, [2, 2, 3]), (2, 5, [1, 1]), (1, 1, [1]), (8, 2, [4, 4])]
)
def test_cut(width: int, chunks: int, widths: list[int]) -> None:
    cuts = cut_width(width, chunks)
    assert [b - a for a, b in cuts] == widths
    assert np.concatenate([np.arange(a, b) for a, b in cuts]).tolist() == list(range(width))
