"""Arrays on a GPU: the only door to CuPy, which is loaded when an array comes from there."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from sparsecomm.errors import InputError

DeviceArray = Any
"""A cupy.ndarray; CuPy is optional and says nothing of its types."""


def on_device(array: object) -> bool:
    """Say whether an array lies on a GPU: one of CuPy, PyTorch, JAX, Numba or any other that shows its memory."""
    return hasattr(array, "__cuda_array_interface__")


def check_array(block: object) -> None:
    """Refuse what is no array, such as a list.

    Raises:
        InputError: it has no shape or no dtype.
    """
    if not (hasattr(block, "shape") and hasattr(block, "dtype")):
        raise InputError(f"an array is needed, not a {type(block).__name__}; numpy.asarray makes one")


def device_module() -> Any:
    """Return CuPy.

    Raises:
        InputError: it is not installed.
    """
    try:
        import cupy
    except ImportError as err:
        raise InputError(
            "work on a GPU needs CuPy, which cannot be loaded here: install sparsecomm[cuda12] or sparsecomm[cuda13]"
        ) from err
    return cupy


def check_gpu() -> None:
    """Refuse to go on where no GPU can be used.

    Raises:
        InputError: CuPy is not installed, or finds none.
    """
    if not device_module().cuda.is_available():
        raise InputError("no GPU can be used here: CuPy finds neither driver nor device; go on without --gpu")


def use_gpu(local_rank: int) -> None:
    """Make the GPU of a rank of a node current; ranks that outnumber the visible GPUs share them in turn."""
    cuda = device_module().cuda
    cuda.Device(local_rank % cuda.runtime.getDeviceCount()).use()


def as_device(array: object) -> DeviceArray:
    """Return a CuPy array: of the same memory where it lies on a GPU, else a copy on the current one."""
    return device_module().asarray(array)


def as_host(array: Any) -> npt.NDArray[Any]:
    """Return an array of the host: of the same memory if it is one, else a copy, once what makes it is done."""
    host: npt.NDArray[Any] = as_device(array).get() if on_device(array) else array
    return host


def from_cupyx(matrix: Any) -> csr_array[Any]:
    """Return a CSR matrix on the host: scipy's as it is, a copy of CuPy's."""
    if not on_device(matrix.data):
        return csr_array(matrix)
    parts = (as_host(part) for part in (matrix.data, matrix.indices, matrix.indptr))
    return csr_array(tuple(parts), shape=matrix.shape)


def to_cupyx(matrix: csr_array[Any]) -> Any:
    """Return a copy of a CSR matrix on the current GPU, a `cupyx.scipy.sparse.csr_matrix`.

    Raises:
        InputError: CuPy is not installed.
    """
    device_module()
    from cupyx.scipy import sparse

    return sparse.csr_matrix(
        tuple(as_device(part) for part in (matrix.data, matrix.indices, matrix.indptr)), shape=matrix.shape
    )


def settle(array: object) -> None:
    """Wait until what has been enqueued for an array is done; at once where it lies on the host."""
    if on_device(array):
        current_stream().synchronize()


def pinned(num_bytes: int) -> npt.NDArray[np.uint8]:
    """Return host memory, uninitialised, that copies to and from a GPU need not stage and its kernels can write to."""
    memory = device_module().cuda.alloc_pinned_memory(max(num_bytes, 1))
    return np.frombuffer(memory, dtype=np.uint8, count=num_bytes)


def address(array: npt.NDArray[Any]) -> np.uint64:
    """Return where an array begins, for a kernel: pinned host memory has the same address on the GPU."""
    return np.uint64(array.ctypes.data)


def current_stream() -> Any:
    """Return the stream that the caller has made current; all work goes there."""
    return device_module().cuda.get_current_stream()


def new_stream() -> Any:
    """Return a stream that waits for no other, the default stream included."""
    return device_module().cuda.Stream(non_blocking=True)


def new_event(interprocess: bool = False) -> Any:
    """Return an event without a clock, one that other processes can wait for on request."""
    return device_module().cuda.Event(disable_timing=True, interprocess=interprocess)


def device_runtime() -> Any:
    """Return the functions of the CUDA runtime."""
    return device_module().cuda.runtime


def array_at(begin: int, num_bytes: int, shape: tuple[int, ...], dtype: npt.DTypeLike, owner: object) -> DeviceArray:
    """Return an array in memory of the GPU that `owner` keeps and frees.

    Args:
        begin: address of the memory.
        num_bytes: of the memory.
        shape, dtype: of the array, at its beginning.
        owner: lives as long as the array.
    """
    cuda = device_module().cuda
    memory = cuda.UnownedMemory(begin, num_bytes, owner)
    return device_module().ndarray(shape, np.dtype(dtype), cuda.MemoryPointer(memory, 0))
