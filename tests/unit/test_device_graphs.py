"""Products on a GPU launched as CUDA graphs, without a GPU: a graph keeps addresses, and must hold kernels alone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from sparsecomm.arrays import as_device, current_stream
from sparsecomm.collectives.device_graphs import Graphs
from sparsecomm.collectives.device_stage import MessageStage
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.collectives.transport.local import run_local
from sparsecomm.topology import Topology
from tests.cli import sparsecomm
from tests.cpu_gpu_mpi import GpuAware
from tests.cpu_streams import HazardError, Stream
from tests.device_bodies import check_graphs
from tests.spmm_cases import TOPOLOGIES

BY = ("ipc", "nccl", "mpi", "pinned")


def run(cupy: Any, ranks: int, strategy: str, by: str) -> int:
    def body(transport: Transport) -> int:
        return check_graphs(cupy, GpuAware(transport, cupy.memory), Topology.parse(TOPOLOGIES[ranks]), strategy, by)

    return min(run_local(ranks, body))


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7])
def test_products(cupy: Any, ranks: int) -> None:
    strategies = ("hierarchical", "cover", "reduce", "relay")
    for number, by in enumerate(BY if ranks == 2 else BY[ranks % 3 : ranks % 3 + 1]):
        graphs = run(cupy, ranks, strategies[(number + ranks) % 4], by)
        assert graphs or ranks == 1 or by == "pinned"  # what lies between messages is always in the same place


def test_a_part_is_captured_when_it_comes_again(cupy: Any) -> None:
    graphs, (source, first, second) = Graphs(on=True), (as_device(np.full((2, 2), n)) for n in range(3))
    calls = []

    def enqueue(out: Any) -> None:
        calls.append(out)
        out.fill(5)

    for number, out in enumerate((first, first, first, second, first, second, second)):
        graphs.run("part", (int(out.data.ptr),), partial(enqueue, out))
        assert (out.get() == 5).all()
        out.set(source.get(), stream=current_stream())
        assert graphs.number == (0, 1, 1, 1, 1, 2, 2)[number]
    assert len(calls) == 4  # once as they are, once into a graph
    graphs.forget()
    graphs.run("part", (int(first.data.ptr),), partial(enqueue, first))
    assert (graphs.number, len(calls)) == (0, 5)


def test_there_is_an_end_to_graphs(cupy: Any) -> None:
    graphs = Graphs(on=True)
    for _ in range(2):
        for number in range(100):
            graphs.run(number, (), lambda: None)
    assert graphs.number == 64
    for number in range(1000):
        graphs.run("elsewhere", (number,), lambda: None)
    assert len(graphs._seen) == 128


def test_where_nothing_can_be_captured_kernels_are_launched(
    cupy: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(stream: Stream) -> None:
        raise RuntimeError("cudaErrorStreamCaptureUnsupported")

    monkeypatch.setattr(Stream, "begin_capture", refuse)
    with caplog.at_level(logging.WARNING, "sparsecomm"):
        assert run(cupy, 2, "hierarchical", "ipc") == 0
    assert {record.getMessage() for record in caplog.records} == {
        "CUDA graphs cannot be had here, kernels are launched one by one: cudaErrorStreamCaptureUnsupported"
    }
    assert len(caplog.records) == 2  # each rank says so once


def _anywhere(graphs: Graphs, part: Any, memory: Any, enqueue: Callable[[], None], run: Any = Graphs.run) -> None:
    run(graphs, part, (), enqueue)


def _marked_inside(stage: MessageStage, pack: Any = MessageStage.pack) -> None:
    pack(stage)
    stage._packed.record(current_stream())


def _with_memory(graphs: Graphs, part: Any, memory: Any, enqueue: Callable[[], None], run: Any = Graphs.run) -> None:
    def more() -> None:
        as_device(np.zeros(3))
        enqueue()

    run(graphs, part, memory, more)


MUTANTS: dict[str, tuple[str, Callable[[pytest.MonkeyPatch], None]]] = {
    "graphs are launched for memory elsewhere": ("ipc", lambda patch: patch.setattr(Graphs, "run", _anywhere)),
    "an event is recorded in a graph": ("mpi", lambda patch: patch.setattr(MessageStage, "pack", _marked_inside)),
    "memory is allocated in a graph": ("nccl", lambda patch: patch.setattr(Graphs, "run", _with_memory)),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_what_must_not_be_in_a_graph_is_found(cupy: Any, mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    by, change = MUTANTS[mutant]
    change(monkeypatch)
    with pytest.raises((HazardError, AssertionError)):
        run(cupy, 2, "hierarchical", by)
    cupy.memory.forget()


def test_the_command_wants_a_gpu_for_graphs() -> None:
    ran = sparsecomm("spmm", "grid2d:8", "--gpu-graphs")
    assert (ran.rc, ran.stdout) == (2, "")
    assert "--gpu-graphs is for blocks on GPUs; add --gpu" in ran.stderr
