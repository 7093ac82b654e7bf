"""Small runs that go on as one call, with ranks that are threads, whose channels have no such call."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sparsecomm.collectives.transport.base import Transport
from sparsecomm.collectives.transport.local import run_local
from tests import as_one_bodies


@pytest.mark.parametrize("num_ranks", [1, 3, 4])
@pytest.mark.parametrize("body", as_one_bodies.BODIES, ids=lambda body: body.__name__)
def test_body(body: Callable[[Transport], None], num_ranks: int) -> None:
    run_local(num_ranks, body)
