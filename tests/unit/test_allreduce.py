"""The allreduces of training with one thread per rank."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sparsecomm.collectives.transport.base import Transport
from sparsecomm.collectives.transport.local import run_local
from tests import allreduce_bodies


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("body", allreduce_bodies.BODIES, ids=lambda body: body.__name__)
def test_body(body: Callable[[Transport], None], num_ranks: int) -> None:
    run_local(num_ranks, body, deadline_s=200)
