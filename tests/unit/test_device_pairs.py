"""Rows on GPUs timed by every transport, and the choice by what was measured; no time is looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparsecomm.calibration import Calibration
from sparsecomm.collectives import pairs
from sparsecomm.collectives.device_links import DeviceLinks
from sparsecomm.collectives.device_pairs import measure_gpus
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.collectives.transport.local import run_local
from sparsecomm.collectives.wire import RowFormat
from sparsecomm.cost import Link
from sparsecomm.errors import InputError
from sparsecomm.topology import Topology
from tests.cpu_gpu_mpi import GpuAware
from tests.reference_plans import Case, hub_plan

NODES = Topology.parse("nodes:2,1")
FAST, SLOW = Link(1e-6, 1e9, 2e9), Link(1e-6, 1e8, 2e8)
PROMPT = Link(1e-9, 1e8, 2e8)


def calibrated(gpu: dict[str, dict[str, Link]]) -> Calibration:
    return Calibration("here", 3, {}, 1e9, 1e-9, 1e-9, 1.0, "", gpu=gpu)


def chosen(cupy: Any, gpu: dict[str, dict[str, Link]], width: int = 64, aware: bool = True) -> list[str]:
    """Return what `auto` takes for the levels of a plan over two nodes."""
    plan = hub_plan(Case(NODES, [0, 2, 4, 6], [[2, 4], [0, 5], [1, 3]]))

    def body(transport: Transport) -> list[str]:
        links = DeviceLinks(
            GpuAware(transport, cupy.memory) if aware else transport, "auto", 2, calibrated(gpu).model(NODES)
        )
        found = links.choose(plan.rank(transport.rank), RowFormat.of(width, np.float32, None, 2))
        links.close()
        return [str(choice) for choice in found]

    found = run_local(3, body)
    assert found[0] == found[1] == found[2]
    return found[0]


def test_the_fastest_that_was_timed_is_taken(cupy: Any) -> None:
    gpu = {"node": {"ipc": SLOW, "nccl": FAST, "pinned": SLOW}, "network": {"pinned": SLOW, "mpi": FAST, "nccl": SLOW}}
    inside, between = chosen(cupy, gpu)
    assert inside.startswith("nccl (predicted by what was measured: ipc ")
    assert between.startswith("mpi (predicted by what was measured: pinned ")


def test_what_cannot_be_used_here_is_not_taken(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = {"node": {"nccl": FAST, "pinned": SLOW}, "network": {"mpi": FAST, "pinned": SLOW, "nccl": PROMPT}}
    monkeypatch.setattr(cupy.cuda.nccl, "available", False)
    inside, between = chosen(cupy, gpu, aware=False)
    assert inside.startswith("pinned (predicted")
    assert between.startswith("pinned (predicted")


def test_levels_without_figures_keep_the_published_order(cupy: Any) -> None:
    inside, between = chosen(cupy, {"network": {"nccl": FAST}})
    assert inside == "ipc (ranks read each other's memory)"
    assert between.startswith("nccl (predicted")
    assert chosen(cupy, {"socket": {"nccl": FAST}})[1] == "ipc (ranks read each other's memory)"


@pytest.mark.parametrize(("width", "best"), [(1, "nccl"), (1 << 20, "pinned")])
def test_short_rows_go_by_what_is_prompt(cupy: Any, width: int, best: str) -> None:
    assert chosen(cupy, {"network": {"nccl": PROMPT, "pinned": FAST}}, width)[1].startswith(best)


def test_ranks_of_a_group_share_its_ports() -> None:
    model = calibrated({"network": {"nccl": FAST, "mpi": Link(0, 1e9, 1e9)}}).model(Topology.parse("uniform:2x4"))
    assert model.gpu_s(1, "nccl", 2, 1000) == pytest.approx(2e-6 + 1000 / (2e9 / 4))
    assert model.gpu_s(1, "mpi", 2, 1000) == pytest.approx(1000 / (1e9 / 4))


def test_every_transport_is_timed(cupy: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pairs, "_SECONDS", 1e-6)
    monkeypatch.setattr(pairs, "_TIMES", 1)

    def body(transport: Transport) -> dict[str, dict[str, Link]]:
        return measure_gpus(GpuAware(transport, cupy.memory), NODES, (8, 256, 1024), lambda text: None)

    found = run_local(3, body)
    assert found[0] == found[1] == found[2]
    names = ["ipc", "nccl", "mpi", "pinned"]  # threads share memory at all levels
    assert {level: [*links] for level, links in found[0].items()} == {"node": names, "network": names}
    made = calibrated(found[0])
    made.save(tmp_path / "c.json")
    assert Calibration.load(tmp_path / "c.json") == made


def test_without_a_gpu_nothing_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise InputError("there is none")

    monkeypatch.setattr("sparsecomm.collectives.device_pairs.check_gpu", refuse)
    said: list[str] = []
    assert run_local(2, lambda t: measure_gpus(t, Topology.parse("nodes:2"), (256, 512), said.append)) == [{}, {}]
    assert said == ["rows on GPUs are not timed: rank 0: there is none"] * 2
