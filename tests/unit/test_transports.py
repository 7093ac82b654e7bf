"""Transports among each other: random plans through all of them, and what happens where memory cannot be shared."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from sparsecomm.collectives.exchange import Exchange
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.collectives.transport.local import LocalTransport, run_local
from tests.exchange_cases import blocks, same_bits
from tests.jobs import run_job
from tests.reference_plans import hub_plan, random_case
from tests.transport_campaign import check_plans


def check_seeds(num_ranks: int, seeds: range) -> None:
    run_local(num_ranks, lambda transport: check_plans(transport, seeds))


@pytest.mark.parametrize("num_ranks", [2, 3, 5])
def test_random_plans(num_ranks: int) -> None:
    check_seeds(num_ranks, range(25))


@pytest.mark.parametrize("mpi", ["mpich", "openmpi"])
def test_random_plans_under_mpi(mpi: str) -> None:
    job = run_job(3, ["python", "-m", "tests.transport_campaign", "0", "8"], mpi=mpi, timeout=200)
    assert "8 plans on 3 ranks: equal bit for bit" in job.stdout, job


@pytest.mark.campaign
@pytest.mark.parametrize("num_ranks", [2, 3, 4, 7])
def test_campaign(num_ranks: int) -> None:
    check_seeds(num_ranks, range(1000, 2500))


@pytest.mark.campaign
@pytest.mark.parametrize("mpi", ["mpich", "openmpi"])
@pytest.mark.parametrize("num_ranks", [2, 4])
def test_campaign_under_mpi(mpi: str, num_ranks: int) -> None:
    argv = ["python", "-m", "tests.transport_campaign", "3000", "4000"]
    job = run_job(num_ranks, argv, mpi=mpi, timeout=3000)
    assert f"1000 plans on {num_ranks} ranks: equal bit for bit" in job.stdout, job


def test_no_memory_to_share(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Rows are copied as without it, and a warning says so."""
    monkeypatch.setattr(LocalTransport, "share", lambda transport, num_bytes: None)
    plan = hub_plan(random_case(4, seed=1))
    xs = blocks(plan.offsets, 2, np.float32, seed=0)

    def body(transport: Transport) -> None:
        with Exchange(plan.rank(transport.rank), transport, 2, num_levels=2) as exchange:
            pending = exchange.start(xs[transport.rank], in_place=True)
            assert same_bits(pending.wait(), np.concatenate(xs)[exchange.plan.ghost_rows])
            assert exchange.ghost_places() is None
            assert not exchange.executed.bytes_loaded.any()

    with caplog.at_level(logging.WARNING):
        run_local(4, body, num_shared=1)
    assert "shared memory cannot be had; rows inside the node are copied" in caplog.text


def test_far_ranks_share_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Levels are shared only where the ranks that speak there have common memory."""
    monkeypatch.setattr(
        LocalTransport, "neighbours", lambda transport: np.array([transport.rank], dtype=np.int32), raising=True
    )
    plan = hub_plan(random_case(4, seed=1))

    def body(transport: Transport) -> int:
        with Exchange(plan.rank(transport.rank), transport, 2, num_levels=2) as exchange:
            return exchange.num_shared

    assert run_local(4, body, num_shared=1) == [0] * 4
