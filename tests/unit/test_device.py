"""Blocks on a GPU without one: kernels run as C++ on lazy streams, and NVRTC compiles them where it is installed."""

from __future__ import annotations

import ctypes
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from scipy.sparse import csr_array

from sparsecomm.apps.host_features import HostFeatures, HostProduct, pieces
from sparsecomm.apps.matrix import DistMatrix
from sparsecomm.apps.spmm import SpmmOptions, run_spmm
from sparsecomm.arrays import check_gpu, device_module, on_device
from sparsecomm.collectives.device_source import add_source, copy_source, sum_source, take_source
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.collectives.transport.local import run_local
from sparsecomm.errors import InputError
from sparsecomm.io.matrix import read_matrix
from sparsecomm.kernels.cuda import DeviceMatrix
from sparsecomm.kernels.cuda_source import DTYPES, merge_source, row_source, tiled_source
from sparsecomm.kernels.epilogue import Epilogue
from sparsecomm.layout import Layout, Layouts
from sparsecomm.topology import Topology
from tests.cli import sparsecomm
from tests.device_bodies import (
    check_cupyx,
    check_cupyx_rows,
    check_distributed,
    check_host_features,
    check_moves,
    check_product,
    skewed,
)
from tests.spmm_cases import TOPOLOGIES

ARCHITECTURES: Final = ("sm_70", "sm_80", "sm_90")


@pytest.mark.parametrize("kind", ["tiled", "rows", "merge"])
def test_products(cupy: Any, kind: str) -> None:
    epilogue = Epilogue(np.linspace(0, 1, 90)[:, None], 1.5, 8)
    check_product(cupy, skewed(90, 70), 17, kind, False, None)
    check_product(cupy, skewed(90, 70), 17, kind, True, epilogue)


def test_products_of_other_types(cupy: Any) -> None:
    check_product(cupy, skewed(300, 40, np.float64), 3, "tiled", True, Epilogue(np.linspace(0, 1, 3)))
    check_product(cupy, skewed(300, 40, np.float64), 1, "merge", True, None)


@pytest.mark.parametrize("steps", [1, 7, 100])
def test_equal_shares_meet_anywhere(cupy: Any, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparsecomm.kernels.cuda._STEPS", steps)
    check_product(cupy, skewed(60, 33), 2, "merge", True, None)


def test_auto_chooses_by_the_rows(cupy: Any) -> None:
    hub = csr_array((np.ones(1200, np.float32), (np.r_[np.zeros(1000, int), 1:201], np.r_[0:1000, 0:200])))
    assert DeviceMatrix(hub).kind == "merge"
    assert DeviceMatrix(read_matrix("grid3d27:8").astype(np.float32)).kind == "tiled"
    assert DeviceMatrix(csr_array(np.eye(600, dtype=np.float32))).kind == "rows"


def test_matrices_of_cupy(cupy: Any) -> None:
    check_cupyx(cupy)
    run_local(2, lambda transport: check_cupyx_rows(cupy, transport))


def test_features_on_the_host(cupy: Any) -> None:
    run_local(2, lambda transport: check_host_features(cupy, transport))


@pytest.mark.parametrize("most", [1, 2, 5, 100])
def test_pieces_touch_few_columns(most: int) -> None:
    block = skewed(40, 30, np.float64)
    total, found = np.zeros(block.shape), 0
    for rows, piece, columns in pieces(block, most):
        assert columns.size <= most
        total[rows.start : rows.stop, columns] += piece.toarray()
        found += 1
    assert np.array_equal(total, block.toarray())
    assert found == 1 or most < 30
    assert pieces(csr_array((4, 3)), most) == []


def test_features_on_the_host_that_do_not_fit_are_refused(cupy: Any) -> None:
    def body(transport: Transport) -> None:
        layout = Layout.block(12, 2)
        own = layout.own_rows(transport.rank)
        rows = csr_array(np.ones((12, 12), np.float32)[own.start : own.stop])
        layouts, topology = Layouts(layout, layout), Topology.parse("uniform:2x1")
        with (
            DistMatrix.from_rows(rows, layouts, topology, transport, strategy="reduce") as matrix,
            pytest.raises(InputError, match="row_mode=False"),
        ):
            HostProduct(matrix, 1 << 20)
        with DistMatrix.from_rows(rows, layouts, topology, transport, row_mode=False) as matrix:
            for shape, dtype in (((7, 3), np.float32), ((6, 3), np.float64)):
                with pytest.raises(InputError, match="owns 6 rows of float32"):
                    HostProduct(matrix, 1 << 20)(HostFeatures(*shape, dtype))
            with pytest.raises(InputError, match="one row of X has 128 bytes, more than the 127"):
                HostProduct(matrix, 127)(HostFeatures(6, 3, np.float32))
        with pytest.raises(InputError, match="not of int32"):
            HostFeatures(6, 3, np.int32)

    run_local(2, body)


def test_empty_matrices(cupy: Any) -> None:
    for shape in ((0, 4), (4, 0), (4, 4)):
        matrix = csr_array(shape, dtype=np.float32)
        for kind in ("auto", "tiled", "rows", "merge"):
            out = cupy.asarray(np.ones((shape[0], 2), np.float32))
            DeviceMatrix(matrix, kind).multiply(cupy.asarray(np.ones((shape[1], 2), np.float32)), out)
            assert not out.get().any()


def test_what_does_not_fit_is_refused(cupy: Any) -> None:
    matrix = DeviceMatrix(skewed(20, 30))
    x, out = (cupy.asarray(np.ones((n, 4), np.float32)) for n in (30, 20))
    with pytest.raises(InputError, match="do not fit"):
        matrix.multiply(out, x)
    with pytest.raises(InputError, match="X is float64"):
        matrix.multiply(cupy.asarray(np.ones((30, 4))), out)
    with pytest.raises(InputError, match="contiguous"):
        matrix.multiply(cupy.asarray(np.ones((4, 30), np.float32).T), out)
    with pytest.raises(InputError, match="complex64"):
        DeviceMatrix(skewed(20, 30).astype(np.complex64))
    with pytest.raises(InputError, match="no kind 'ell'"):
        DeviceMatrix(skewed(20, 30), "ell")


@pytest.mark.parametrize(("width", "dtype", "offset"), [(4, np.float32, 0), (3, np.float64, 1), (5, np.float32, 2)])
def test_rows_move(cupy: Any, width: int, dtype: type, offset: int) -> None:
    check_moves(cupy, width, dtype, offset)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7])
def test_distributed_products(cupy: Any, ranks: int) -> None:
    topology = Topology.parse(TOPOLOGIES[ranks])
    for strategy, width in (("hierarchical", 4), ("cover", 3), ("reduce", 1)):
        run_local(ranks, lambda t, s=strategy, w=width: check_distributed(cupy, t, topology, s, w))  # type: ignore[misc]


def test_the_command_multiplies_on_gpus(cupy: Any) -> None:
    options = SpmmOptions("rmat:7", width=4, dtype="float64", strategy="hierarchical", check=True, repeat=2, gpu=True)
    report = run_local(3, lambda transport: run_spmm(options, Topology.parse("nodes:2,1"), transport))[0]
    assert (report["gpu"], report["verified"]) == (True, True)
    assert report["executed"]["rows"] == report["strategies"]["hierarchical"]["rows"]


def test_the_command_refuses_other_types(cupy: Any) -> None:
    ran = sparsecomm("spmm", "grid2d:8", "--gpu", "--dtype", "complex64")
    assert (ran.rc, ran.stdout) == (2, "")
    assert "--gpu multiplies float32 and float64, not complex64" in ran.stderr


def test_without_cupy_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(InputError, match="sparsecomm\\[cuda12\\]"):
        device_module()
    with pytest.raises(InputError, match="sparsecomm\\[cuda12\\]"):
        check_gpu()
    assert not on_device(np.ones(3))


def nvidia_folder(package: str) -> Path:
    """Return the folder of one of NVIDIA's packages, or skip the test and name what is missing."""
    try:
        found = importlib.util.find_spec(f"nvidia.{package}")
    except ModuleNotFoundError:
        found = None
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"nvidia.{package} is not installed: pip install nvidia-{package.replace('_', '-')}-cu12")
    return Path(found.submodule_search_locations[0])


def compile_source(source: str, architecture: str) -> str:
    """Return PTX.

    Raises:
        RuntimeError: with the compiler's log.
    """
    library = ctypes.CDLL(str(next((nvidia_folder("cuda_nvrtc") / "lib").glob("libnvrtc.so.*"))))
    options = [
        f"--gpu-architecture=compute_{architecture.removeprefix('sm_')}",
        f"-I{nvidia_folder('cuda_runtime') / 'include'}",
        "--std=c++17",
    ]
    program = ctypes.c_void_p()
    assert library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None) == 0
    words = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    failed = library.nvrtcCompileProgram(program, len(options), words)
    if failed:
        raise RuntimeError(_text(library.nvrtcGetProgramLogSize, library.nvrtcGetProgramLog, program))
    return _text(library.nvrtcGetPTXSize, library.nvrtcGetPTX, program)


def _text(size_of: Any, get: Any, program: ctypes.c_void_p) -> str:
    size = ctypes.c_size_t()
    assert size_of(program, ctypes.byref(size)) == 0
    buffer = ctypes.create_string_buffer(size.value)
    assert get(program, buffer) == 0
    return buffer.value.decode()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_all_kernels_compile(architecture: str, dtype: str) -> None:
    if (architecture, dtype) == ("sm_70", "bfloat16"):
        return  # it came with sm_80
    depth = 1 if architecture == "sm_70" else 2
    tiled = compile_source(tiled_source(dtype, minibatch=6, depth=depth), architecture)
    assert ".entry tiled_spmm(" in tiled
    assert ("cp.async" in tiled) == (depth == 2)
    assert ".entry row_spmm(" in compile_source(row_source(dtype, index="long long"), architecture)
    assert ".entry merge_spmm(" in compile_source(merge_source(dtype, lanes=4), architecture)
    assert ".entry add_rows(" in compile_source(add_source(dtype), architecture)
    assert ".entry sum_rows(" in compile_source(sum_source(dtype), architecture)


@pytest.mark.parametrize("unit", [1, 2, 4, 8, 16])
def test_rows_are_copied_in_whole_units(unit: int) -> None:
    wide = {1: "u8", 2: "u16", 4: "u32", 8: "u64", 16: "v4.u32"}[unit]
    for source in (copy_source(unit), take_source(unit)):
        ptx = compile_source(source, "sm_80")
        assert re.search(rf"ld\.global\.(nc\.)?{re.escape(wide)}", ptx), ptx


@pytest.mark.parametrize("minibatch", [1, 12, 16])
def test_sums_stay_in_registers(minibatch: int) -> None:
    ptx = compile_source(tiled_source("float32", minibatch=minibatch), "sm_80")
    inner = max(re.findall(r"\$L__BB\w+:(.*?)bra", ptx, re.DOTALL), key=lambda block: block.count("fma.rn.f32"))
    assert inner.count("fma.rn.f32") % minibatch == 0
    assert ".local" not in ptx


def test_a_mistake_is_reported() -> None:
    with pytest.raises(RuntimeError, match=r"kernel\.cu"):
        compile_source(tiled_source("float32").replace("Sum sums", "Smu sums"), "sm_80")
