"""Memory of a GPU through the CUDA driver alone: enough to see whether MPI can send it."""

from __future__ import annotations

import ctypes
from types import TracebackType
from typing import Final

from sparsecomm.errors import LaunchError

_LIBRARY: Final = "libcuda.so.1"


class DeviceMemory:
    """Memory on the first visible GPU, of this process's own context; a context manager.

    Args:
        num_bytes: to allocate.
        library: of the driver.

    Raises:
        LaunchError: there is no driver, no GPU, or too little memory.
    """

    def __init__(self, num_bytes: int, library: str = _LIBRARY) -> None:
        self.num_bytes = num_bytes
        self._cuda = _load(library)
        self._device, context, pointer = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
        self._call("cuInit", 0)
        self._call("cuDeviceGet", ctypes.byref(self._device), 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._device)
        self._call("cuCtxSetCurrent", context)
        self._call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(num_bytes))
        self.address = pointer.value

    def __enter__(self) -> DeviceMemory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call("cuMemFree_v2", ctypes.c_uint64(self.address))
        self._call("cuDevicePrimaryCtxRelease_v2", self._device)

    def write(self, data: bytes) -> None:
        """Copy `data` to the beginning and wait until it is there."""
        self._call("cuMemcpyHtoD_v2", ctypes.c_uint64(self.address), data, ctypes.c_size_t(len(data)))
        self._call("cuCtxSynchronize")

    def read(self, num_bytes: int) -> bytes:
        """Return the first bytes."""
        data = ctypes.create_string_buffer(num_bytes)
        self._call("cuMemcpyDtoH_v2", data, ctypes.c_uint64(self.address), ctypes.c_size_t(num_bytes))
        return data.raw

    def _call(self, name: str, *arguments: object) -> None:
        code = getattr(self._cuda, name)(*arguments)
        if code:
            raise LaunchError(f"the CUDA driver refuses {name} with code {code}")


def _load(library: str) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(library)
    except OSError as err:
        raise LaunchError(f"there is no CUDA driver: {err}") from None
