"""The local product: one entry, `spmm`."""

from __future__ import annotations

from sparsecomm.kernels.local import Block, spmm

__all__ = ["Block", "spmm"]
