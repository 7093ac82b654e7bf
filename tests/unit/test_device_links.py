"""Blocks on GPUs by IPC, NCCL and pinned memory, without a GPU: streams are lazy, and uses in no order raise."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sparsecomm.apps.spmm import SpmmOptions, run_spmm
from sparsecomm.arrays import current_stream
from sparsecomm.collectives import device_links, device_stage
from sparsecomm.collectives.device_links import DeviceLinks
from sparsecomm.collectives.device_near import Near
from sparsecomm.collectives.device_stage import MessageStage, arrivals
from sparsecomm.collectives.transport import ipc
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.collectives.transport.local import run_local
from sparsecomm.collectives.wire import RowFormat
from sparsecomm.errors import InputError
from sparsecomm.plan import Plan
from sparsecomm.topology import Topology
from sparsecomm.typing import IntRank
from tests import cpu_streams
from tests.cli import sparsecomm
from tests.cpu_gpu_mpi import GpuAware
from tests.cpu_streams import Event
from tests.device_bodies import check_distributed, check_levels
from tests.reference_plans import Case, direct_plan, hub_plan, random_case
from tests.spmm_cases import TOPOLOGIES
from tests.transport_wrappers import Wrapped

BY_LEVEL = (
    *(("ipc", "pinned"), ("ipc", "nccl"), ("nccl", "pinned"), ("ipc", "ipc"), ("nccl", "nccl"), ("pinned", "ipc")),
    *(("mpi", "mpi"), ("ipc", "mpi"), ("mpi", "nccl"), ("pinned", "mpi")),
)


def run_levels(cupy: Any, plan: Plan, names: tuple[str, ...], width: int, dtype: Any, *pauses: float) -> None:
    def body(transport: Transport) -> None:
        pause = pauses[transport.rank] if pauses else 0.0
        transport = GpuAware(transport, cupy.memory)
        check_levels(cupy, transport, plan, names[: plan.topology.num_levels], width, dtype, pause)

    run_local(plan.num_ranks, body)


def run_seed(cupy: Any, ranks: int, seed: int) -> None:
    """Run one plan, direct or over hubs, by one choice for each level."""
    plan = (hub_plan, direct_plan)[seed % 3 == 0](random_case(ranks, seed))
    width, dtype = ((4, np.float32), (1, np.float64), (3, np.float16))[seed % 5 % 3]
    run_levels(cupy, plan, BY_LEVEL[seed % len(BY_LEVEL)], width, dtype)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7])
def test_levels_bring_what_the_plan_says(cupy: Any, ranks: int) -> None:
    for seed in range(ranks % 2, len(BY_LEVEL) if ranks < 7 else 8, 2):
        run_seed(cupy, ranks, seed)


@pytest.mark.campaign
@pytest.mark.parametrize("ranks", [2, 3, 4, 7])
def test_many_plans_are_brought_as_they_say(cupy: Any, ranks: int) -> None:
    for seed in range(100):
        run_seed(cupy, ranks, seed)


def test_threads_of_one_process_use_addresses(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ipc, "process_token", lambda: bytes(16))
    cupy.memory.refuses = "not in one process"
    run_levels(cupy, hub_plan(random_case(3, 2)), ("ipc", "ipc"), 2, np.float32)


@pytest.mark.parametrize("by", ["auto", "nccl", "mpi"])
def test_products(cupy: Any, by: str) -> None:
    topology = Topology.parse(TOPOLOGIES[3])

    def body(transport: Transport, strategy: str) -> None:
        check_distributed(cupy, GpuAware(transport, cupy.memory), topology, strategy, 2, by)

    for strategy in ("hierarchical", "relay"):
        run_local(3, partial(body, strategy=strategy))


def _without_the_last_waits(near: Near, begin: Callable[[Near], None]) -> None:
    near._begun = False
    begin(near)


def _at_once(channel: Any, stage: Any, transport: Transport) -> list[int]:
    return [0] * len(stage.recvs)


def _never_sent(channel: Any, stage: Any, transport: Transport) -> list[int]:
    hasty = SimpleNamespace(wait=channel.wait, finish=lambda wait: channel.test())
    return arrivals(hasty, stage, transport)  # type: ignore[arg-type]


def _marked_early(stage: MessageStage, pack: Callable[[MessageStage], None] = MessageStage.pack) -> None:
    stage._packed.record(current_stream())
    pack(stage)
    stage._packed = SimpleNamespace(record=lambda stream: None, synchronize=stage._packed.synchronize)


READ_IN_PLACE: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "rows are read before they are ready": lambda patch: patch.setattr(Near, "wait_for", lambda *given: None),
    "rows are marked before they are ready": lambda patch: patch.setattr(Near, "record", lambda *given: None),
    "a block is filled while it is read": lambda patch: patch.setattr(
        Near, "begin", lambda near, begin=Near.begin: _without_the_last_waits(near, begin)
    ),
    "nobody asks whether rows are marked": lambda patch: patch.setattr(device_stage, "arrivals", _at_once),
    "nobody asks whether rows have been read": lambda patch: patch.setattr(Near, "_hear", lambda near: None),
}
SENT_BY_MPI: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "rows are sent before they are packed": lambda patch: patch.setattr(Event, "synchronize", lambda event: None),
    "rows are said to be packed too early": lambda patch: patch.setattr(MessageStage, "pack", _marked_early),
    "rows are packed anew while they are sent": lambda patch: patch.setattr(device_stage, "arrivals", _never_sent),
}
MUTANTS = {name: ("ipc", patch) for name, patch in READ_IN_PLACE.items()} | {
    name: ("mpi", patch) for name, patch in SENT_BY_MPI.items()
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_missing_wait_is_found(cupy: Any, mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever rank is late: the wait that matters is that of the other one. It is later until that shows."""
    monkeypatch.setattr(cpu_streams, "PATIENCE_S", 1.0)
    by, leave_out = MUTANTS[mutant]
    leave_out(monkeypatch)
    assert any(_goes_wrong(cupy, by, pauses) for late in (0.02, 0.1, 0.5, 2.0) for pauses in ((late, 0.0), (0.0, late)))


def _goes_wrong(cupy: Any, by: str, pauses: tuple[float, float]) -> bool:
    """Return whether uses are found to be in no order, or rows to be wrong."""
    try:
        run_levels(cupy, direct_plan(random_case(2, 0)), (by, by), 2, np.float32, *pauses)
    except AssertionError:
        return True
    finally:
        cupy.memory.forget()
    return False


def choices(transport: Transport, asked: Any, dtype: Any = None) -> list[str]:
    """Return what the levels of a plan over two nodes go by, and why."""
    plan = hub_plan(Case(Topology.parse("nodes:2,1"), [0, 2, 4, 6], [[2, 4], [0, 5], [1, 3]])).rank(transport.rank)
    links = DeviceLinks(transport, asked, 2)
    form = RowFormat.of(2, np.float32, dtype, 2)
    found = [str(choice) for choice in (*links.choose(plan, form), *links.choose(plan, form))]
    links.close()
    assert found[:2] == found[2:]
    return found[:2]


class TwoNodes(Wrapped):
    """Ranks 0 and 1 share memory, rank 2 is elsewhere."""

    def neighbours(self) -> IntRank:
        return np.array([0, 1] if self.inner.rank < 2 else [2], dtype=np.int32)


def test_auto_reads_in_place_inside_a_node(cupy: Any) -> None:
    inside, between = run_local(3, lambda transport: choices(TwoNodes(transport), "auto"))[0]
    assert inside == "ipc (ranks read each other's memory)"
    assert between == "pinned (ranks of different nodes share no memory)"


def test_where_handles_are_refused_rows_are_copied(cupy: Any, caplog: pytest.LogCaptureFixture) -> None:
    cupy.memory.refuses = "cudaErrorNotSupported"
    with caplog.at_level(logging.WARNING, "sparsecomm"):
        inside = run_local(3, lambda transport: choices(TwoNodes(transport), ("ipc", "pinned")))[2][0]
    assert inside == "pinned (memory of other ranks cannot be read: rank 0: that of rank 1: cudaErrorNotSupported)"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    inside = run_local(3, lambda transport: choices(TwoNodes(transport), "auto"))[2][0]
    assert inside.startswith("nccl (memory of other ranks cannot be read")


def test_handles_that_read_other_bytes_are_not_used(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_links, "_read", lambda begin: 5)
    found = run_local(3, lambda transport: choices(transport, "ipc"))[1][0]
    assert found == "pinned (memory of other ranks cannot be read: rank 0: other bytes are read than rank 1 wrote)"


def test_rounded_rows_go_through_the_host(cupy: Any) -> None:
    found = run_local(3, lambda transport: choices(transport, "auto", "bfloat16"))[0]
    assert found == ["pinned (rows are rounded on their way)"] * 2


def test_nccl_is_refused_where_two_ranks_share_a_gpu(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cupy.cuda.runtime, "deviceGetPCIBusId", lambda device: "0000:01:00.0")
    for rank in range(3):
        with pytest.raises(InputError, match="ranks 0 and 1 use the same GPU"):
            run_local(3, lambda transport, r=rank: _refused_on(transport, r))  # type: ignore[misc]
    monkeypatch.setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1")
    monkeypatch.setattr(cupy.cuda.nccl, "get_version", lambda: 23200)
    run_local(3, lambda transport: choices(transport, "nccl"))
    monkeypatch.setattr(cupy.cuda.nccl, "available", False)
    with pytest.raises(InputError, match="CuPy was built without it"):
        run_local(3, lambda transport: choices(transport, "nccl"))


def _refused_on(transport: Transport, rank: int, by: str = "nccl") -> None:
    """Raise what this rank is told, if it is `rank`; all others must be told something too."""
    try:
        choices(transport, ("pinned", by))
    except InputError:
        if transport.rank == rank:
            raise
    else:
        raise AssertionError(f"{by} was not refused")


class AwareElsewhere(GpuAware):
    """One rank has an MPI that takes no memory of GPUs."""

    def device_refusal(self) -> str:
        return "it was built without" if self.inner.rank == 1 else ""


def test_mpi_is_given_no_memory_of_gpus_unless_all_ranks_can(cupy: Any) -> None:
    asked = run_local(3, lambda transport: choices(GpuAware(transport, cupy.memory), ("pinned", "mpi")))[2]
    assert asked == ["pinned (as asked)", "mpi (as asked)"]
    for rank in range(3):
        with pytest.raises(InputError, match=r"MPI is given no memory of GPUs: rank 1: it was built without; .* auto"):
            run_local(3, lambda t, r=rank: _refused_on(AwareElsewhere(t, cupy.memory), r, "mpi"))  # type: ignore[misc]
    with pytest.raises(InputError, match="rank 0: ranks that are threads copy"):
        run_local(3, lambda transport: choices(transport, "mpi"))


def test_what_is_no_transport_is_refused(cupy: Any) -> None:
    for asked, words in (("gloo", "no transport 'gloo'"), (["ipc"] * 3, "3 transports .* for 2 levels")):
        with pytest.raises(InputError, match=words):
            run_local(1, lambda transport, asked=asked: DeviceLinks(transport, asked, 2))  # type: ignore[misc]


def test_the_command_says_what_rows_go_by(cupy: Any) -> None:
    options = SpmmOptions(
        "rmat:7", width=4, dtype="float64", strategy="hierarchical", check=True, gpu=True, gpu_transport="ipc"
    )
    report = run_local(3, lambda transport: run_spmm(options, Topology.parse("nodes:2,1"), TwoNodes(transport)))[0]
    assert report["verified"]
    assert report["gpu_transports"]["gather"]["node"] == {"transport": "ipc", "why": "as asked"}
    assert report["gpu_transports"]["gather"]["network"]["transport"] == "pinned"
    assert report["executed"]["bytes_loaded"]["node"] == report["strategies"]["hierarchical"]["bytes"]["node"] > 0
    assert report["executed"]["bytes"]["node"] == 0
    ran = sparsecomm("spmm", "grid2d:8", "--gpu-transport", "nccl")
    assert (ran.rc, ran.stdout) == (2, "")
    assert "add --gpu" in ran.stderr
