"""Products and moves of rows on one GPU: our kernels against cuSPARSE, moves against the copy of the device.

    python benchmarks/gpu.py [--matrices radixnet:16384:5 grid3d27:64 rmat:18] [--widths 1 16 64 256]

Needs CuPy and a GPU. Times are those of events on the stream: medians of rounds in which all run in turn.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import numpy as np
from _machine import machine, machine_text

from sparsecomm.arrays import check_gpu, device_module
from sparsecomm.collectives.device import copy_rows
from sparsecomm.collectives.device_intake import Intake
from sparsecomm.collectives.schedule import Message
from sparsecomm.errors import InputError
from sparsecomm.io.matrix import read_matrix
from sparsecomm.kernels.cuda import KINDS, DeviceMatrix

ROUNDS = 21
MATRICES = ("radixnet:1024:0", "radixnet:16384:5", "grid3d27:64", "grid2d:1024", "rmat:18")


def median_ms(alternatives: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Run all in turn, a warm-up first, and return the median milliseconds of each."""
    cuda = device_module().cuda
    times: dict[str, list[float]] = {name: [] for name in alternatives}
    for number in range(ROUNDS + 2):
        for name, run in alternatives.items():
            begin, end = cuda.Event(), cuda.Event()
            begin.record()
            run()
            end.record()
            end.synchronize()
            if number > 1:
                times[name].append(cuda.get_elapsed_time(begin, end))
    return {name: float(np.median(found)) for name, found in times.items()}


def products(spec: str, width: int) -> str:
    """Compare every kind with cuSPARSE, results checked."""
    from cupyx.scipy import sparse

    cupy, matrix = device_module(), read_matrix(spec).astype(np.float32)
    x = cupy.random.default_rng(0).random((matrix.shape[1], width), dtype=np.float32)
    theirs = sparse.csr_matrix(matrix)
    expected = theirs @ x
    alternatives: dict[str, Callable[[], object]] = {"cusparse": lambda: theirs @ x}
    for kind in KINDS:
        ours, out = DeviceMatrix(matrix, kind), cupy.empty(expected.shape, np.float32)
        ours.multiply(x, out)
        assert cupy.allclose(out, expected, rtol=1e-3, atol=1e-3), (spec, width, kind)
        alternatives[kind] = lambda ours=ours, out=out: ours.multiply(x, out)
    found, chosen = median_ms(alternatives), DeviceMatrix(matrix).kind
    shown = "  ".join(f"{name} {ms * 1000:9.1f}" for name, ms in found.items())
    ratio = found["cusparse"] / found[chosen]
    return f"{spec:18s} {matrix.nnz:11,d}  k {width:3d}  us: {shown}  auto {chosen}: cusparse / ours {ratio:.2f}"


def moves(num_bytes: int, width: int) -> str:
    """Compare packing random rows with the copy of as many bytes on the device."""
    cupy, rows = device_module(), num_bytes // (4 * width)
    source, target = cupy.zeros((2 * rows, width), np.float32), cupy.zeros((rows, width), np.float32)
    index = cupy.sort(cupy.random.permutation(2 * rows)[:rows]).astype(np.int64)
    found = median_ms({
        "copy": lambda: cupy.copyto(target, source[:rows]),
        "pack": lambda: copy_rows(target, None, source, index),
        "unpack": lambda: copy_rows(source, index, target, None),
    })  # fmt: skip
    shares = ", ".join(f"{name} {found['copy'] / found[name]:.0%}" for name in ("pack", "unpack"))
    rate = 2 * num_bytes / found["copy"] / 1e6
    return f"{num_bytes >> 20:5d} MiB in rows of {4 * width:5d} bytes: copy {rate:7.1f} GB/s; of its rate: {shares}"


def intakes(num_bytes: int, width: int, sources: int = 3) -> str:
    """Compare rows taken from several blocks in one launch, copied and summed, with the copy of as many bytes."""
    cupy, rows = device_module(), num_bytes // (4 * width)
    blocks = [cupy.zeros((2 * rows, width), np.float32) for _ in range(sources)]
    target, place = cupy.zeros((rows, width), np.float32), np.arange(rows)
    order = np.sort(np.random.default_rng(0).permutation(2 * rows)[:rows])
    places = [int(block.data.ptr) for block in blocks]
    parts = [
        Message(0, 0, peer, part, np.ones(part.size, np.bool_))
        for peer, part in enumerate(np.array_split(place, sources))
    ]
    taken = Intake(target, parts, places, np.array_split(order, sources), adds=False)
    whole = [Message(0, 0, peer, place, np.full(rows, peer == 0)) for peer in range(sources)]
    summed = Intake(target, whole, places, [order] * sources, adds=True)
    found = median_ms({
        "copy": lambda: cupy.copyto(target, blocks[0][:rows]),
        "take": taken.enqueue,
        "sum": summed.enqueue,
    })  # fmt: skip
    share = found["copy"] / found["take"], (sources + 1) / 2 * found["copy"] / found["sum"]
    return (
        f"{num_bytes >> 20:5d} MiB in rows of {4 * width:5d} bytes, {sources} sources: of the copy's rate: "
        f"take {share[0]:.0%}, sum {share[1]:.0%}"
    )


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--matrices", nargs="+", default=MATRICES)
    parser.add_argument("--widths", nargs="+", type=int, default=[1, 16, 64, 256])
    args = parser.parse_args()
    try:
        check_gpu()
    except InputError as err:
        print(f"nothing is measured: {err}")
        return 0
    properties = device_module().cuda.runtime.getDeviceProperties(0)
    print(machine_text(machine()))
    print(f"gpu        {properties['name'].decode()}, cupy {device_module().__version__}\n")
    for num_bytes in (1 << 20, 64 << 20, 512 << 20):
        for width in (1, 16, 64, 256):
            print(moves(num_bytes, width), flush=True)
            print(intakes(num_bytes, width), flush=True)
    for spec in args.matrices:
        for width in args.widths:
            print(products(spec, width), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
