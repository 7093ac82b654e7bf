"""Formats of rows on the wire: errors within their bounds, bytes exactly as promised, an iteration that converges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.sparse import csr_array, diags_array

from sparsecomm.apps.matrix import DistMatrix
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.collectives.transport.local import run_local
from sparsecomm.collectives.wire import RowFormat, WireFormat
from sparsecomm.errors import InputError
from sparsecomm.layout import Layout, Layouts
from sparsecomm.topology import Topology
from tests.conftest import DataDir

SLOTS = (np.float32, np.float64)
NUMBERS = st.floats(-(2.0**99), 2.0**99, width=32).filter(lambda number: number == 0 or abs(number) > 2.0**-99)


def rounded(x: np.ndarray, name: str) -> np.ndarray:
    found = WireFormat.of(name, x.dtype).rounded(x)
    assert found.dtype == x.dtype
    return found


@pytest.mark.parametrize("dtype", SLOTS)
@given(arrays(np.float32, (7, 5), elements=NUMBERS))
def test_bounds(dtype: type, drawn: np.ndarray) -> None:
    x = drawn.astype(dtype) * dtype(1.1)
    largest = np.abs(x).max(axis=1, keepdims=True)
    assert (np.abs(rounded(x, "bfloat16") - x) <= 2.0**-8 * np.abs(x)).all()
    assert (np.abs(rounded(x, "int8") - x) <= largest / 253).all()
    assert (np.abs(rounded(x, "float32") - x) <= 2.0**-24 * np.abs(x)).all()
    small = x / (np.abs(x).max() + 1)  # within the range of float16
    assert (np.abs(rounded(small, "float16") - small) <= 2.0**-11 * np.abs(small) + 2.0**-25).all()


def test_bounds_are_met_closely() -> None:
    """Real bounds, not generous ones: random rows come close to them."""
    x = np.random.default_rng(0).uniform(0.5, 1, (1000, 64)).astype(np.float32)
    assert (np.abs(rounded(x, "bfloat16") - x) / x).max() > 0.9 * 2.0**-8
    assert (np.abs(rounded(x, "int8") - x) / x.max(axis=1, keepdims=True)).max() > 0.95 / 253


@pytest.mark.parametrize("dtype", SLOTS)
def test_numbers_that_are_none(dtype: type) -> None:
    x = np.array([[0, -0.0, 0], [1, np.nan, 2], [1, np.inf, -np.inf]], dtype=dtype)
    for name in ("bfloat16", "float16"):
        np.testing.assert_array_equal(rounded(x, name), x)
    found = rounded(x, "int8")
    np.testing.assert_array_equal(found[0], 0)
    assert np.isnan(found[1:]).all()
    np.testing.assert_array_equal(rounded(np.array([[3e38, -3e38]], dtype=dtype), "int8") > 0, [[True, False]])


def test_twice_is_once() -> None:
    """A row that a hub hands on in the same format is not rounded again."""
    x = np.random.default_rng(1).standard_normal((500, 64)).astype(np.float32)
    once = rounded(x, "bfloat16")
    np.testing.assert_array_equal(rounded(once, "bfloat16"), once)
    once = rounded(x, "int8")
    np.testing.assert_allclose(rounded(once, "int8"), once, rtol=3e-7)


def test_bytes_of_a_row() -> None:
    form = RowFormat.of(64, np.float32, [None, "bf16", "int8", np.float16], 4)
    assert form.row_bytes == (256, 128, 64 + 4, 128)
    assert repr(form.wires) == "(float32, bfloat16, int8, float16)"


@pytest.mark.parametrize(
    ("dtype", "wire"),
    [(np.float32, "int7"), (np.complex64, "bf16"), (np.complex64, "int8"), (np.float16, "bf16"), (np.int64, "bf16")],
)
def test_what_cannot_travel_is_refused(dtype: type, wire: str) -> None:
    with pytest.raises(InputError, match=r"wire format|cannot travel"):
        RowFormat.of(3, dtype, wire, 1)


def test_iteration_on_a_real_graph(data_dir: DataDir) -> None:
    """X <- 0.9 S X + 0.1 H on Amazon Photo, S normalised as in a GCN: as fast with short rows, as near as they round.

    S has norm 1, so that the roundings of all products together are at most 0.9 / (1 - 0.9) times one of them.
    """
    given = np.load(data_dir / "gnn" / "amazon_photo.npz")
    n = given["adj_indptr"].size - 1
    adjacency = csr_array((np.ones(given["adj_indices"].size), given["adj_indices"], given["adj_indptr"]), shape=(n, n))
    graph = csr_array(adjacency + adjacency.T + diags_array(np.ones(n)))
    graph.data[:] = 1
    scale = diags_array(graph.sum(axis=1) ** -0.5)
    s = csr_array(scale @ graph @ scale).astype(np.float32)
    h = np.random.default_rng(0).random((n, 16)).astype(np.float32)
    layout, topology = Layout.block(n, 4), Topology.parse("uniform:2x2")

    def solve(transport: Transport, wire: str | None) -> tuple[np.ndarray, list[float], np.ndarray]:
        own = slice(*layout.offsets[transport.rank : transport.rank + 2])
        wires = [None, wire]
        layouts = Layouts(layout, layout)
        with DistMatrix.from_rows(s[own], layouts, topology, transport, strategy="cover", wire_dtype=wires) as a:
            x, steps = h[own], []
            for _ in range(30):
                new = np.float32(0.9) * (a @ x) + np.float32(0.1) * h[own]
                steps.append(float(transport.reduce(np.array([((new - x) ** 2).sum()]), "sum")[0]) ** 0.5)
                x = new
            return x, steps, a.executed.bytes_sent

    found = {wire: run_local(4, lambda t, wire=wire: solve(t, wire)) for wire in (None, "bf16", "int8")}
    x = {wire: np.concatenate([part[0] for part in parts]) for wire, parts in found.items()}
    steps = {wire: parts[0][1] for wire, parts in found.items()}
    network = {wire: sum(int(part[2][1]) for part in parts) for wire, parts in found.items()}
    assert network["bf16"] * 2 == network[None]
    assert network["int8"] * 64 == network[None] * (16 + 4)
    for wire, share in (("bf16", 2.0**-8), ("int8", 1 / 253)):
        np.testing.assert_allclose(steps[wire][:10], steps[None][:10], rtol=0.05)
        error = np.linalg.norm(x[wire] - x[None]) / np.linalg.norm(x[None])
        assert 0 < error <= share * 0.9 / (1 - 0.9)
