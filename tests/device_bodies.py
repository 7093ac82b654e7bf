"""What holds for blocks on a GPU, given CuPy or what stands for it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_array, random_array

from sparsecomm.apps.host_features import HostFeatures, HostProduct
from sparsecomm.apps.matrix import DistMatrix
from sparsecomm.arrays import from_cupyx, to_cupyx
from sparsecomm.collectives.device import add_rows, copy_rows
from sparsecomm.collectives.device_graphs import Graphs
from sparsecomm.collectives.device_levels import DeviceLevels, LevelGather, LevelScatter
from sparsecomm.collectives.device_links import DeviceLinks, DeviceTransport
from sparsecomm.collectives.execute import execute, execute_reverse
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.collectives.wire import RowFormat
from sparsecomm.kernels.cuda import DeviceMatrix
from sparsecomm.kernels.epilogue import Epilogue
from sparsecomm.layout import Layout, Layouts
from sparsecomm.plan import Plan
from sparsecomm.topology import Topology
from tests.exchange_cases import blocks, same_bits
from tests.transport_wrappers import Late

Matrix = csr_array[Any]


def skewed(rows: int, cols: int, dtype: type = np.float32) -> Matrix:
    """Return a matrix with a full row, empty rows and rows of any length between."""
    rng = np.random.default_rng(0)
    matrix = random_array((rows, cols), density=0.05, format="lil", rng=rng, dtype=np.float64)
    if rows:
        matrix[rows // 3, :] = 1
        matrix[rows // 2 : rows // 2 + 9, :] = 0
    return csr_array(matrix.tocsr().astype(dtype))


def check_product(cupy: Any, matrix: Matrix, width: int, kind: str, keep: bool, epilogue: Epilogue | None) -> None:
    """Compare a product with scipy's."""
    rng = np.random.default_rng(1)
    x, old = (rng.random((n, width)).astype(matrix.dtype) for n in matrix.shape[::-1])
    out = cupy.asarray(old)
    DeviceMatrix(matrix, kind).multiply(cupy.asarray(x), out, keep=keep, epilogue=epilogue)
    expected = matrix.astype(np.float64) @ x.astype(np.float64) + (old if keep else 0)
    if epilogue is not None:
        epilogue.apply(expected)
    assert np.allclose(out.get(), expected, rtol={2: 4e-3, 4: 1e-5, 8: 1e-13}[matrix.dtype.itemsize], atol=1e-5)


def check_cupyx(cupy: Any) -> None:
    """A matrix of CuPy is multiplied where it lies: its values may change there. It goes in and out unchanged."""
    for kind in ("auto", "rows", "merge", "tiled"):
        expected = skewed(60, 40)
        there = to_cupyx(expected)
        out = cupy.empty((60, 5), np.float32)
        x = np.random.default_rng(1).random((40, 5), dtype=np.float32)
        made = DeviceMatrix(there, kind)
        there.data.fill(2)
        made.multiply(cupy.asarray(x), out)
        values = expected.data if kind == "tiled" else np.full(expected.nnz, 2, np.float32)
        assert np.allclose(out.get(), csr_array((values, expected.indices, expected.indptr)) @ x, rtol=1e-5)
        assert kind in ("auto", made.kind)
    same = from_cupyx(to_cupyx(expected))
    for part in ("data", "indices", "indptr"):
        assert np.array_equal(getattr(same, part), getattr(expected, part)), part
    assert same.shape == expected.shape


def check_cupyx_rows(cupy: Any, transport: Transport) -> None:
    """Rows of CuPy make a distributed matrix as scipy's do."""
    whole, layout = skewed(61, 61, np.float64), Layout.block(61, transport.num_ranks)
    own = layout.own_rows(transport.rank)
    rows, x = to_cupyx(csr_array(whole[own.start : own.stop])), np.random.default_rng(0).random((61, 4))
    topology = Topology.parse(f"uniform:{transport.num_ranks}x1")
    with DistMatrix.from_rows(from_cupyx(rows), Layouts(layout, layout), topology, transport) as matrix:
        y = matrix @ cupy.asarray(x[own.start : own.stop])
        assert np.allclose(y.get(), (whole @ x)[own.start : own.stop], atol=1e-12)


def check_moves(cupy: Any, width: int, dtype: type, offset: int) -> None:
    """Move rows out of a block and into one, and add them; `offset` columns of the block are not meant."""
    rng = np.random.default_rng(2)
    block, rows = (rng.random((n, width + offset)).astype(dtype) for n in (40, 7))
    index = rng.permutation(40)[:7]
    place, found = cupy.asarray(block), cupy.asarray(rows)
    copy_rows(found[:, offset:], None, place[:, offset:], cupy.asarray(index))
    assert np.array_equal(found.get()[:, offset:], block[index, offset:])
    copy_rows(place[:, offset:], cupy.asarray(index), cupy.asarray(rows)[:, offset:], None)
    expected = block.copy()
    expected[index, offset:] = rows[:, offset:]
    assert np.array_equal(place.get(), expected)
    add_rows(place[:, offset:], cupy.asarray(index), cupy.asarray(rows[:, offset:].copy()))
    expected[index, offset:] += rows[:, offset:]
    assert np.array_equal(place.get(), expected)


def check_levels(
    cupy: Any, transport: Transport, plan: Plan, names: Sequence[str], width: int, dtype: Any, pause: float = 0.0
) -> None:
    """Gather and scatter a block on the GPU of every rank, laps after laps without a look at what they bring.

    Then all must be what the reference says, bit for bit where floats are summed as they are on the host.

    Args:
        pause: seconds that this rank is idle before it begins a run.
    """
    rank, levels, exact = transport.rank, plan.topology.num_levels, np.dtype(dtype).itemsize > 2
    links = DeviceLinks(transport, list(names), levels)
    form = RowFormat.of(width, dtype, None, levels)
    part, chosen = plan.rank(rank), [choice.name for choice in links.choose(plan.rank(rank), form)]
    assert chosen == list(names)
    late = Late(transport, len(names))
    graphs = Graphs(on=True)
    made = [DeviceLevels(part, late, links, chosen, width, np.dtype(dtype), adds, graphs) for adds in (False, True)]
    gather, scatter = LevelGather(made[0]), LevelScatter(made[1])
    brought = []
    for lap in range(3):
        x, partials, y = _drawn(plan, width, dtype, lap, exact)
        sums, ghosts = cupy.asarray(y[rank]), cupy.empty((part.num_ghost, width), dtype)
        time.sleep(pause)
        gather.pack(cupy.asarray(x[rank]))
        gather.start()
        scatter.pack(cupy.asarray(partials[rank]))
        scatter.start()
        time.sleep(pause)
        copy_rows(ghosts, None, gather.wait(), None)
        scatter.add(sums)
        brought.append((ghosts, sums))
    for lap, (ghosts, sums) in enumerate(brought):
        x, partials, y = _drawn(plan, width, dtype, lap, exact)
        assert same_bits(ghosts.get(), execute(plan, x)[rank])
        assert np.array_equal(sums.get(), execute_reverse(plan, partials, y)[rank])
    rows = part.rows(levels)
    assert np.array_equal(made[0].executed.rows_sent, 3 * rows[0])
    assert np.array_equal(made[0].executed.rows_received, 3 * rows[1])
    for exchange in made:
        exchange.close()
    links.close()


def _drawn(plan: Plan, width: int, dtype: Any, lap: int, exact: bool) -> list[Any]:
    indptrs = enumerate((plan.offsets, plan.ghost_indptr, plan.offsets))
    return [blocks(indptr, width, dtype, 3 * lap + part, whole=not exact) for part, indptr in indptrs]


def check_distributed(
    cupy: Any, transport: Transport, topology: Topology, strategy: str, width: int, by: DeviceTransport = "pinned"
) -> None:
    """Multiply on the GPU of every rank, forwards and transposed, again and with other values; scipy has the answer."""
    whole = skewed(61, 61, np.float64)
    layout = Layout.block(61, topology.num_ranks)
    own = layout.own_rows(transport.rank)
    mine = slice(own.start, own.stop)
    layouts, rows = Layouts(layout, layout), csr_array(whole[mine])
    with DistMatrix.from_rows(rows, layouts, topology, transport, strategy=strategy, device_transport=by) as matrix:
        for turn in range(3):
            x = np.random.default_rng(turn).random((61, width))
            there = cupy.asarray(x[mine])
            assert np.allclose((matrix @ there).get(), (whole @ x)[mine], atol=1e-12)
            assert np.allclose((matrix.T @ there).get(), (whole.T @ x)[mine], atol=1e-12)
            assert np.array_equal(there.get(), x[mine])
        first, second = cupy.cuda.Stream(), cupy.cuda.Stream()
        with first:
            early = matrix @ cupy.asarray(2 * x[mine])
        with second:
            late = matrix @ there
        second.synchronize()
        first.synchronize()
        assert np.allclose(late.get(), (whole @ x)[mine], atol=1e-12)
        assert np.allclose(early.get(), 2 * (whole @ x)[mine], atol=1e-12)
        vector = cupy.asarray(x[mine, 0])
        assert np.allclose((matrix @ vector).get(), (whole @ x[:, 0])[mine], atol=1e-12)
        before = matrix.executed
        matrix @ there
        middle = matrix.executed
        matrix @ x[mine]
        copied = ("bytes_sent",) if by in ("pinned", "nccl", "mpi") else ()  # what is read in place is not sent
        for noun in ("rows_sent", "messages_sent", "rows_received", *copied):
            there_moved, here_moved = (getattr(moved, noun) for moved in (middle - before, matrix.executed - middle))
            assert np.array_equal(there_moved, here_moved), noun
        matrix.update_values(2 * rows.data)
        assert np.allclose((matrix @ there).get(), 2 * (whole @ x)[mine], atol=1e-12)


def check_graphs(cupy: Any, transport: Transport, topology: Topology, strategy: str, by: DeviceTransport) -> int:
    """Multiply again and again what lies in the same place, other numbers each time; return how many graphs there are.

    Then other values, and what lies elsewhere.
    """
    whole, layout = skewed(61, 61, np.float64), Layout.block(61, topology.num_ranks)
    own = layout.own_rows(transport.rank)
    mine, layouts = slice(own.start, own.stop), Layouts(layout, layout)
    rows, rng = csr_array(whole[mine]), np.random.default_rng(0)
    with DistMatrix.from_rows(
        rows, layouts, topology, transport, strategy=strategy, device_transport=by, graphs=True
    ) as matrix:
        there, elsewhere = cupy.empty((mine.stop - mine.start, 3), np.float64), cupy.cuda.Stream()
        for turn in range(6):
            x = rng.random((61, 3))
            scale = 1 + turn // 3
            if turn == 3:
                matrix.update_values(2 * rows.data)
            with cupy.cuda.get_current_stream() if turn % 3 else elsewhere:
                there = cupy.asarray(x[mine]) if turn == 5 else there
                there.set(x[mine], stream=cupy.cuda.get_current_stream())
                y, z = matrix @ there, matrix.T @ there
                assert np.allclose(y.get(), scale * (whole @ x)[mine], atol=1e-12)
                assert np.allclose(z.get(), scale * (whole.T @ x)[mine], atol=1e-12)
        assert matrix._on_device is not None
        return matrix._on_device.num_graphs


def check_host_features(cupy: Any, transport: Transport) -> None:
    """A product of features that stay on the host is right however little of them fits, and reads whole lines."""
    whole, layout = skewed(61, 61, np.float64), Layout.block(61, transport.num_ranks)
    own = layout.own_rows(transport.rank)
    x = np.random.default_rng(0).random((61, 3))
    rows, topology = csr_array(whole[own.start : own.stop]), Topology.parse(f"uniform:{transport.num_ranks}x1")
    with DistMatrix.from_rows(rows, Layouts(layout, layout), topology, transport, row_mode=False) as matrix:
        features = HostFeatures.of(x[own.start : own.stop])
        assert features.padded.ctypes.data % 128 == features.padded.strides[0] % 128 == 0
        read = []
        for lines in (7, 61):
            product = HostProduct(matrix, lines * 128)
            assert np.allclose(product(features).get(), (whole @ x)[own.start : own.stop], atol=1e-12)
            read.append(product.bytes_read)
        assert read[0] >= read[1] == 128 * np.unique(rows.indices).size
