"""Products in chunks and one after the other with one process per rank."""

from __future__ import annotations

from collections.abc import Callable

from mpi4py import MPI

import pytest

from sparsecomm.collectives.transport.base import Transport
from sparsecomm.collectives.transport.mpi import MpiTransport
from tests import pipeline_bodies


@pytest.mark.mpi
@pytest.mark.parametrize("body", pipeline_bodies.BODIES, ids=lambda body: body.__name__)
def test_body(body: Callable[[Transport], None], comm: MPI.Intracomm) -> None:
    with MpiTransport(comm) as transport:
        body(transport)
