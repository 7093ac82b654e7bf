"""PETSc beside exchanges: its calls are stood in for over threads; tests/mpi/test_petsc.py has PETSc itself."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sparsecomm.apps.petsc import from_petsc, to_petsc_sf
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.collectives.transport.local import run_local
from sparsecomm.errors import InputError
from sparsecomm.layout import Layout
from sparsecomm.plan import RankPlan
from tests import fake_petsc
from tests.petsc_bodies import BODIES, Kit


@pytest.fixture
def petsc(monkeypatch: pytest.MonkeyPatch) -> Any:
    module = fake_petsc.module()
    monkeypatch.setitem(sys.modules, "petsc4py", module)
    return module.PETSc


@pytest.mark.parametrize("num_ranks", [1, 2, 4])
@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_body(body: Callable[[Kit, Transport], None], num_ranks: int, petsc: Any) -> None:
    run_local(num_ranks, lambda transport: body(Kit(petsc, transport), transport), deadline_s=200)


@pytest.mark.parametrize(
    ("kind", "assembled", "message"),
    [
        ("mpibaij", True, "not mpibaij; give mat.convert"),
        ("seqmaij", True, "not seqmaij"),
        ("dense", True, "not dense"),
        ("mpiaij", False, "call mat.assemble"),
    ],
)
def test_what_cannot_be_read_is_refused(kind: str, assembled: bool, message: str, petsc: Any) -> None:
    def body(transport: Transport) -> None:
        mat = petsc.Mat().createAIJ(((1, 2), (1, 2)), (np.array([0, 0]), np.array([]), np.array([])), transport)
        mat.kind, mat.assembled = kind, assembled
        with pytest.raises(InputError, match=message):
            from_petsc(mat)

    run_local(2, body, deadline_s=200)


def test_other_ranks_are_refused(petsc: Any) -> None:
    def body(transport: Transport) -> None:
        mat = petsc.Mat()
        mat.getComm = lambda: type("Comm", (), {"getSize": lambda self: 3})()
        mat.assembled = True
        with pytest.raises(InputError, match="over 3 ranks, but comm has 2"):
            from_petsc(mat, comm=transport)

    run_local(2, body, deadline_s=200)


def test_another_layout_is_refused(petsc: Any) -> None:
    def body(transport: Transport) -> None:
        none = np.empty(0, dtype=np.int64)
        plan = RankPlan(transport.rank, 3 * transport.rank, 3, none, none, ())
        with pytest.raises(InputError, match="rank 1 owns 3 rows from 3 on, but the layout gives it 4 from 3 on"):
            to_petsc_sf(plan, Layout(np.array([0, 3, 7])), transport)

    run_local(2, body, deadline_s=200)


def test_without_petsc_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "petsc4py", None)
    none = np.empty(0, dtype=np.int64)
    with pytest.raises(InputError, match=r"sparsecomm\[petsc\]"):
        to_petsc_sf(RankPlan(0, 0, 3, none, none, ()), Layout(np.array([0, 3])))
