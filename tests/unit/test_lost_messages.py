"""What the checks are worth: a message is lost, cut short or replaced by old bytes, and some check must say so."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparsecomm.apps import measured
from sparsecomm.apps.spmm import SpmmOptions, run_spmm
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.collectives.transport.local import run_local
from sparsecomm.errors import ExchangeError, PlanError, SparseCommError
from sparsecomm.topology import Topology
from tests.cli import sparsecomm
from tests.transport_wrappers import Lossy

MACHINE = Topology.parse("nodes:2,1")
OPTIONS = SpmmOptions("rmat:7:6", width=3, strategy="direct", check=True)
Json = dict[str, Any]


def spoilt(how: str, transport: Transport, *, options: SpmmOptions = OPTIONS, late: bool = False) -> Json:
    """Multiply over a transport that spoils the message from rank 2 to rank 0; `late`: only once plans are proved."""
    armed = [] if late else [True]
    lossy = Lossy(transport, 2, 0, how, armed)

    def arm(step: str) -> None:
        if step.startswith("multiplying"):
            armed.append(True)

    return run_spmm(options, MACHINE, lossy, arm)


def test_nothing_is_wrong_without_a_fault() -> None:
    reports = run_local(3, lambda transport: run_spmm(OPTIONS, MACHINE, transport))
    assert all(report["verified"] for report in reports)
    assert reports[0]["executed"]["rows"] == reports[0]["strategies"]["direct"]["rows"]


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("strategy", ["direct", "hierarchical", "reduce"])
@pytest.mark.parametrize("how", ["empty", "short"])
def test_what_arrives_is_counted(how: str, strategy: str, transpose: bool) -> None:
    """Plans are proved over a sound transport first: the run itself must notice."""
    options = SpmmOptions("rmat:7:6", width=3, strategy=strategy, transpose=transpose)
    with pytest.raises(ExchangeError, match=r"rank \d, stage \d: \d+ bytes came from rank \d, but the plan says \d+"):
        run_local(3, partial(_both_ways, how, options))


def _both_ways(how: str, options: SpmmOptions, transport: Transport) -> None:
    """Spoil 2 -> 0 and 0 -> 2: a strategy need not send in both directions."""
    armed: list[bool] = []
    lossy = Lossy(Lossy(transport, 2, 0, how, armed), 0, 2, how, armed)

    def arm(step: str) -> None:
        if step.startswith("multiplying"):
            armed.append(True)

    run_spmm(options, MACHINE, lossy, arm)


def test_a_message_that_never_leaves_ends_the_run() -> None:
    with pytest.raises(ExchangeError, match=r"1(\.0)? s"):
        run_local(3, partial(spoilt, "never", late=True), deadline_s=1.0)


def test_the_proof_finds_old_bytes_that_count_right() -> None:
    """Several times: memory that an earlier proof has freed holds just the rows that are to arrive."""
    for _ in range(10):
        run_local(3, lambda transport: run_spmm(OPTIONS, MACHINE, transport))
        with pytest.raises(PlanError, match="ghost slots end with the wrong row"):
            run_local(3, partial(spoilt, "stale"))


def test_comparison_with_scipy_finds_old_bytes_that_count_right() -> None:
    report = run_local(3, partial(spoilt, "stale", late=True))[0]
    assert report["executed"]["rows"] == report["strategies"]["direct"]["rows"]  # counts alone notice nothing
    assert report["verified"] is False


def test_rows_that_are_not_the_planned_ones_are_noticed(tmp_path: Path) -> None:
    """A sound plan under the name of another strategy runs, moves what that one would not, and is refused."""
    plan = tmp_path / "plan"
    assert sparsecomm("plan", OPTIONS.matrix, "-t", MACHINE.name, "-s", "direct", "-o", plan).rc == 0
    header = json.loads((plan / "header.json").read_text())
    (plan / "header.json").write_text(json.dumps({**header, "strategy": "hierarchical"}))
    ran = sparsecomm("spmm", OPTIONS.matrix, "--plan", plan, "--transport", "local", "--json")
    assert (ran.rc, ran.stdout) == (1, "")
    assert re.search(r"6 products (sent|received) .* per level, not", ran.stderr), ran


@pytest.mark.parametrize("noun", ["rows_sent", "bytes_sent", "messages_sent", "rows_received", "messages_received"])
def test_every_count_is_compared(noun: str, monkeypatch: pytest.MonkeyPatch) -> None:
    total = measured._total

    def one_less(*args: Any) -> Any:
        counted = total(*args)
        less = getattr(counted, noun) - np.array([0, 1])
        return type(counted)(**{n: less if n == noun else getattr(counted, n) for n in type(counted).__slots__})

    monkeypatch.setattr(measured, "_total", one_less)
    with pytest.raises(SparseCommError, match=f"products {noun.split('_')[1]} .* {noun.split('_')[0]} per level, not"):
        run_local(3, lambda transport: run_spmm(OPTIONS, MACHINE, transport))
