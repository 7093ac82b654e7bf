"""Tensors on a GPU without one: tensors of the CPU are taken for those of a GPU, where kernels run on lazy streams."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest

from sparsecomm.collectives.transport.base import Transport
from sparsecomm.collectives.transport.local import run_local
from tests.matrix_cases import dist

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
torch_bodies = pytest.importorskip("tests.torch_bodies")


@pytest.mark.parametrize("way", ["hierarchical", "cover"])
def test_products_and_gradients_are_those_of_the_host(way: str, cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    host = run_local(2, lambda transport: products(transport, way))
    monkeypatch.setattr("sparsecomm.apps.torch.device.lies_on_gpu", lambda x: True)
    monkeypatch.setattr("sparsecomm.apps.torch.device.stream_of", lambda x: nullcontext())
    device = run_local(2, lambda transport: products(transport, way))
    for expected, found in zip(host, device, strict=True):
        for one, other in zip(expected[:-1], found[:-1], strict=True):
            torch.testing.assert_close(one, other)
        assert (expected[-1], found[-1]) == (False, True)


def products(transport: Transport, way: str) -> tuple[Any, ...]:
    """Return a product, its gradient, a product of one column, and whether a GPU made them."""
    from sparsecomm.apps.torch import spmm

    with dist(torch_bodies.small(transport.num_ranks), way, transport) as matrix:
        x = torch_bodies.drawn((matrix.product.gather.num_own, 3), seed=transport.rank)
        y = spmm(matrix, x)
        (grad,) = torch.autograd.grad((y**2).sum(), x)
        return y.detach(), grad, spmm(matrix, x[:, 0]).detach(), bool(matrix.device_choices)
