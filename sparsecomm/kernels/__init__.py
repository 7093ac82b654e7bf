"""The local product: one entry, `spmm`, and `prepare` for a matrix that is multiplied many times."""

from __future__ import annotations

from sparsecomm.kernels.epilogue import Epilogue
from sparsecomm.kernels.local import Block
from sparsecomm.kernels.prepared import Prepared, prepare, spmm
from sparsecomm.kernels.registry import Kernel, names, register

__all__ = ["Block", "Epilogue", "Kernel", "Prepared", "names", "prepare", "register", "spmm"]
