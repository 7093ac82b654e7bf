"""Ranks that plan together, as processes, make what one process makes for all of them."""

from __future__ import annotations

from collections.abc import Callable

from mpi4py import MPI

import pytest

from sparsecomm.collectives.transport.mpi import MpiTransport
from sparsecomm.io.matrix import read_matrix
from sparsecomm.table import Router
from tests.planning_bodies import Input, block_inputs, check_counts, check_products, check_remote, random_inputs

Check = Callable[[Router, Input], None]
CHECKS = pytest.mark.parametrize("check", [check_remote, check_products, check_counts])


@pytest.mark.mpi
@CHECKS
def test_random_patterns(comm: MPI.Intracomm, check: Check) -> None:
    with MpiTransport(comm) as transport:
        for given in list(random_inputs(comm.size, num=1))[-3:]:
            check(transport, given)


@pytest.mark.mpi
@CHECKS
def test_generated(comm: MPI.Intracomm, check: Check) -> None:
    with MpiTransport(comm) as transport:
        for given in list(block_inputs(read_matrix("rmat:8:4"), comm.size))[-1:]:
            check(transport, given)
