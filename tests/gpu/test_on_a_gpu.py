"""What tests/unit/test_device.py shows without a GPU, on one: several ranks share it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from sparsecomm.apps.matrix import DistMatrix
from sparsecomm.collectives.device_pairs import measure_gpus
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.collectives.transport.local import run_local
from sparsecomm.io.matrix import read_matrix
from sparsecomm.kernels.cuda import DeviceMatrix
from sparsecomm.kernels.epilogue import Epilogue
from sparsecomm.layout import Layout, Layouts
from sparsecomm.topology import Topology
from tests.device_bodies import (
    check_cupyx,
    check_cupyx_rows,
    check_distributed,
    check_graphs,
    check_host_features,
    check_levels,
    check_moves,
    check_product,
    skewed,
)
from tests.reference_plans import hub_plan, random_case
from tests.spmm_cases import TOPOLOGIES

pytestmark = pytest.mark.gpu
_cupy = pytest.importorskip("cupy", reason="CuPy is not installed; `make gpu-test` installs it, for a GPU")
if not _cupy.cuda.is_available():
    pytest.skip("there is no GPU here", allow_module_level=True)


@pytest.fixture
def cupy() -> Any:
    return _cupy


@pytest.mark.parametrize("width", [1, 3, 16, 64, 100])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["auto", "tiled", "rows", "merge"])
def test_products(cupy: Any, kind: str, dtype: type, width: int) -> None:
    check_product(cupy, skewed(900, 700, dtype), width, kind, False, None)
    check_product(cupy, skewed(900, 700, dtype), width, kind, True, Epilogue(np.linspace(0, 1, 900)[:, None], 1.5, 8))


def test_matrices_of_cupy(cupy: Any) -> None:
    check_cupyx(cupy)
    run_local(2, lambda transport: check_cupyx_rows(cupy, transport))


def test_features_on_the_host(cupy: Any) -> None:
    run_local(3, lambda transport: check_host_features(cupy, transport))


@pytest.mark.parametrize("spec", ["radixnet:1024:3", "grid3d27:24", "rmat:14"])
def test_products_equal_cusparse(cupy: Any, spec: str) -> None:
    from cupyx.scipy import sparse

    matrix = read_matrix(spec).astype(np.float32)
    x = cupy.random.default_rng(0).random((matrix.shape[1], 48), dtype=np.float32)
    out = cupy.empty((matrix.shape[0], 48), np.float32)
    DeviceMatrix(matrix).multiply(x, out)
    assert cupy.allclose(out, sparse.csr_matrix(matrix) @ x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("width", [1, 3, 4, 5, 64])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0, 1, 2])
def test_rows_move(cupy: Any, width: int, dtype: type, offset: int) -> None:
    check_moves(cupy, width, dtype, offset)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("strategy", ["direct", "hierarchical", "reduce", "cover", "hybrid"])
def test_distributed_products(cupy: Any, ranks: int, strategy: str) -> None:
    topology = Topology.parse(TOPOLOGIES[ranks])
    for width in (1, 5, 64):
        run_local(ranks, lambda t, w=width: check_distributed(cupy, t, topology, strategy, w))  # type: ignore[misc]


def test_ranks_are_processes(cupy: Any) -> None:
    argv = ["spmm", "rmat:12", "-t", "uniform:2x2", "--gpu", "--check", "--json"]
    done = subprocess.run([sys.executable, "-m", "sparsecomm", *argv], capture_output=True, timeout=120, check=True)
    report = json.loads(done.stdout)
    assert (report["gpu"], report["verified"], report["ranks"]) == (True, True, 4)


@pytest.mark.parametrize("strategy", ["hierarchical", "cover"])
def test_processes_on_one_gpu_read_in_place(cupy: Any, strategy: str) -> None:
    argv = ["spmm", "rmat:12", "-t", "nodes:4", "-s", strategy, "--gpu", "--gpu-transport", "ipc", "--check", "--json"]
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]}
    command = [sys.executable, "-m", "sparsecomm", *argv, "--repeat", "20"]
    report = json.loads(subprocess.run(command, capture_output=True, timeout=120, check=True, env=env).stdout)
    assert report["verified"]
    chosen = {plan: levels["node"]["transport"] for plan, levels in report["gpu_transports"].items()}
    if set(chosen.values()) != {"ipc"}:
        pytest.skip(f"handles of GPU memory cannot be had here: {report['gpu_transports']}")


def test_nccl_multiplies_or_says_who_shares_a_gpu(cupy: Any) -> None:
    argv = ["spmm", "rmat:12", "-t", "nodes:1,1", "--gpu", "--gpu-transport", "nccl", "--check", "--json"]
    done = subprocess.run([sys.executable, "-m", "sparsecomm", *argv], capture_output=True, timeout=120, text=True)
    if cupy.cuda.runtime.getDeviceCount() > 1:
        assert json.loads(done.stdout)["verified"]
    elif os.environ.get("NCCL_MULTI_RANK_GPU_ENABLE") != "1":
        assert done.returncode == 2
        assert "ranks 0 and 1 use the same GPU" in done.stderr or "built without it" in done.stderr


@pytest.mark.parametrize("strategy", ["hierarchical", "cover"])
def test_mpi_reads_the_gpu_or_says_that_it_cannot(cupy: Any, strategy: str) -> None:
    argv = [
        "spmm",
        "rmat:12",
        "-t",
        "nodes:2,2",
        "-s",
        strategy,
        "--gpu",
        "--gpu-transport",
        "mpi",
        "--check",
        "--json",
    ]
    command = [sys.executable, "-m", "sparsecomm", *argv, "--repeat", "20"]
    done = subprocess.run(command, capture_output=True, timeout=120, text=True)
    if done.returncode == 2:
        assert "MPI is given no memory of GPUs" in done.stderr
        pytest.skip(done.stderr)
    report = json.loads(done.stdout)
    assert report["verified"]
    assert {level["transport"] for plan in report["gpu_transports"].values() for level in plan.values()} == {"mpi"}


@pytest.mark.parametrize("ranks", [2, 3, 4, 7])
def test_levels_bring_what_the_plan_says(cupy: Any, ranks: int) -> None:
    for seed, names in enumerate((("ipc", "pinned"), ("ipc", "ipc"), ("pinned", "ipc"))):
        plan = hub_plan(random_case(ranks, seed, most_rows=300))
        for width, dtype in ((1, np.float64), (5, np.float16), (64, np.float32)):
            chosen = names[: plan.topology.num_levels]
            run_local(ranks, partial(check_levels, cupy, plan=plan, names=chosen, width=width, dtype=dtype))


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("by", ["pinned", "ipc"])
def test_repeated_products_are_graphs(cupy: Any, ranks: int, by: str) -> None:
    topology = Topology.parse(TOPOLOGIES[ranks])
    for strategy in ("hierarchical", "cover", "reduce"):
        run_local(ranks, lambda t, s=strategy: check_graphs(cupy, t, topology, s, by))  # type: ignore[misc]


def test_rows_on_gpus_are_timed_by_every_transport(cupy: Any) -> None:
    topology = Topology.parse("nodes:2,1")
    found = run_local(3, lambda t: measure_gpus(t, topology, (256, 1 << 16, 1 << 22), print))[0]
    assert found.keys() == {"node", "network"}
    for links in found.values():
        assert "pinned" in links
        assert all(link.rank_Bps > 0 for link in links.values())


def test_memory_of_another_library_is_used_in_place(cupy: Any) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    x = torch.ones(30, 4, device="cuda")
    out = cupy.empty((20, 4), np.float32)
    DeviceMatrix(csr_array(skewed(20, 30))).multiply(cupy.asarray(x), out)
    assert np.allclose(out.get(), skewed(20, 30) @ np.ones((30, 4)), rtol=1e-5)


def test_tensors_are_multiplied_where_they_lie(cupy: Any) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    from sparsecomm.apps.torch import spmm

    whole, layout = skewed(300, 300), Layout.block(300, 1)
    x, stream = torch.ones(300, 4, device="cuda", requires_grad=True), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())

    def body(transport: Transport) -> Any:
        topology = Topology.parse("uniform:1x1")
        with DistMatrix.from_rows(whole, Layouts(layout, layout), topology, transport) as matrix:
            with torch.cuda.stream(stream):
                y = spmm(matrix, x * 2)
                y.sum().backward()
            torch.cuda.synchronize()
            return y.detach()

    (y,) = run_local(1, body)
    assert y.device == x.device
    assert np.allclose(y.cpu(), whole @ np.full((300, 4), 2), rtol=1e-5)
    assert np.allclose(x.grad.cpu(), 2 * (whole.T @ np.ones((300, 4))), rtol=1e-5)
