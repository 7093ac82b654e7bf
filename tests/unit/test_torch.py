"""PyTorch over exchanges, with one thread per rank."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sparsecomm.collectives.transport.base import Transport
from sparsecomm.collectives.transport.local import run_local

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
torch_bodies = pytest.importorskip("tests.torch_bodies")


@pytest.mark.parametrize("num_ranks", [1, 2, 4])
@pytest.mark.parametrize("body", torch_bodies.BODIES, ids=lambda body: body.__name__)
def test_body(body: Callable[[Transport], None], num_ranks: int) -> None:
    run_local(num_ranks, body, deadline_s=200)
