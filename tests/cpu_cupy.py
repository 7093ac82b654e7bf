"""As much of CuPy as the library uses, on the CPU: kernels are compiled as C++, and streams are lazy.

What is enqueued on a stream runs when somebody waits for it and not before, so that a missing wait, or memory that is
used again too early, gives wrong rows. Arrays turn into numpy's only where CuPy's do.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Final

import numpy as np

SHIM: Final = """
#include <atomic>
#include <barrier>
#include <thread>
#include <vector>
struct dim3 { int x, y; };
static thread_local dim3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;
static std::barrier<>* together;
struct __attribute__((aligned(16))) uint4 { unsigned x, y, z, w; };
typedef _Float16 __half;
static inline float __half2float(__half value) { return (float)value; }
static inline __half __float2half(float value) { return (__half)value; }
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(n)
#define __shared__
#define __align__(n) __attribute__((aligned(n)))
static void __syncthreads() { together->arrive_and_wait(); }
template <class T> void atomicAdd(T* target, T value) { std::atomic_ref<T>(*target).fetch_add(value); }
extern "C" { alignas(16) unsigned char memory[1 << 18]; }
template <class Run> void launch(dim3 grid, int threads, bool lockstep, Run run) {
    blockDim = {threads, 1}; gridDim = grid;
    std::barrier<> barrier(threads); together = &barrier;
    auto work = [=](int thread) {
        threadIdx = {thread, 0};
        for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y)
            for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) {
                run();
                if (lockstep) __syncthreads();
            }
    };
    std::vector<std::thread> all;
    for (int thread = 0; thread < threads; ++thread)
        if (lockstep) all.emplace_back(work, thread); else work(thread);
    for (auto& one : all) one.join();
}
"""
LAUNCH: Final = """
extern "C" void run(int blocks_x, int blocks_y, int threads, void** a) {{
    launch({{blocks_x, blocks_y}}, threads, {lockstep}, [=] {{ {name}({arguments}); }});
}}
"""
_SIZES: Final = {"int": 4, "long long": 8, "float": 4, "double": 8}
_folder = tempfile.TemporaryDirectory(prefix="cpu_cupy")
_one_at_a_time = threading.RLock()  # blocks of threads share static variables
_local = threading.local()


class Stream:
    """What is to be done, in order."""

    def __init__(self) -> None:
        self.work: list[Callable[[], None]] = []

    def synchronize(self) -> None:
        while self.work:
            self.work.pop(0)()

    def wait_event(self, event: Event) -> None:
        self.work.append(event.synchronize)

    def __enter__(self) -> Stream:
        self._before, _local.stream = current(), self
        return self

    def __exit__(self, *error: object) -> None:
        _local.stream = self._before


def current() -> Stream:
    if not hasattr(_local, "stream"):
        _local.stream = Stream()
    return _local.stream  # type: ignore[no-any-return]


class Event:
    def __init__(self, disable_timing: bool = False) -> None:
        self._stream: Stream | None = None
        self._over = True

    def record(self, stream: Stream) -> None:
        def mark() -> None:
            self._over = True

        self._stream, self._over = stream, False
        stream.work.append(mark)

    def synchronize(self) -> None:
        while not self._over:
            assert self._stream is not None
            self._stream.work.pop(0)()


class ndarray:
    """A block on the device."""

    def __init__(self, memory: np.ndarray[Any, Any]) -> None:
        self._memory = memory

    shape = property(lambda self: self._memory.shape)
    dtype = property(lambda self: self._memory.dtype)
    ndim = property(lambda self: self._memory.ndim)
    size = property(lambda self: self._memory.size)
    strides = property(lambda self: self._memory.strides)
    itemsize = property(lambda self: self._memory.itemsize)
    data = property(lambda self: SimpleNamespace(ptr=self._memory.ctypes.data))
    __cuda_array_interface__ = property(lambda self: self._memory.__array_interface__)

    def __len__(self) -> int:
        return len(self._memory)

    def __getitem__(self, key: Any) -> ndarray:
        return ndarray(self._memory[key])

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def astype(self, dtype: Any, copy: bool = True) -> ndarray:
        return self if self.dtype == dtype and not copy else ndarray(self._memory.astype(dtype))

    def fill(self, value: float) -> None:
        current().work.append(lambda: self._memory.fill(value))

    def set(self, rows: np.ndarray[Any, Any], stream: Stream) -> None:
        assert rows.shape == self.shape
        assert rows.dtype == self.dtype
        stream.work.append(lambda: np.copyto(self._memory, rows))

    def get(self, stream: Stream | None = None, out: Any = None, blocking: bool = True) -> Any:
        place = np.empty_like(self._memory) if out is None else out
        assert place.shape == self.shape
        assert place.flags.c_contiguous
        stream = current() if stream is None else stream
        stream.work.append(lambda: np.copyto(place, self._memory))
        if blocking:
            stream.synchronize()
        return place


class RawKernel:
    """A kernel whose arguments must have the very sizes that its source declares."""

    def __init__(self, source: str, name: str, options: tuple[str, ...] = ()) -> None:
        found = re.search(rf"void {name}\((.*?)\) \{{", source, re.DOTALL)
        assert found, f"no kernel {name}"
        self._kinds = [" ".join(word.split()[:-1]) for word in found[1].split(",")]
        self._name, self._source, self._run = name, source, None

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: Any, *, shared_mem: int = 0) -> None:
        assert len(args) == len(self._kinds), f"{self._name} takes {len(self._kinds)} arguments, not {len(args)}"
        assert shared_mem <= 48 << 10
        held = [self._argument(*pair) for pair in zip(args, self._kinds, strict=True)]
        pointers = (ctypes.c_void_p * len(held))(*(one.ctypes.data for one in held))
        size = grid[0], grid[1] if len(grid) > 1 else 1, block[0]

        def run() -> None:
            with _one_at_a_time:
                self._compiled()(*size, pointers)

        held.append(np.asarray(0))
        run_with = (run, held, args)  # keeps the memory
        current().work.append(lambda: run_with[0]())

    def _argument(self, arg: Any, kind: str) -> np.ndarray[Any, Any]:
        if kind.endswith("*"):
            assert isinstance(arg, ndarray | np.uint64), f"{kind} of {self._name} is given {type(arg)}"
            return np.array(arg if isinstance(arg, np.uint64) else arg.data.ptr, dtype=np.uint64)
        plain = {"Sum": "double" if "typedef double Sum" in self._source else "float"}.get(kind, kind)
        assert isinstance(arg, np.generic), f"{kind} of {self._name} is given {type(arg)}"
        assert arg.itemsize == _SIZES[plain], f"{kind} of {self._name} is given {type(arg)}"
        assert (arg.dtype.kind == "f") == (plain in ("float", "double"))
        return np.array(arg)

    def _compiled(self) -> Any:
        if self._run is None:
            arguments = ", ".join(f"*({kind}*)a[{place}]" for place, kind in enumerate(self._kinds))
            lockstep = str("__syncthreads" in self._source).lower()
            text = SHIM + re.sub("#include.*", "", self._source)
            text += LAUNCH.format(lockstep=lockstep, name=self._name, arguments=arguments)
            path = Path(_folder.name, hashlib.sha256(text.encode()).hexdigest())
            if not path.with_suffix(".so").exists():
                path.with_suffix(".cpp").write_text(text)
                command = ["g++", "-std=c++20", "-O1", "-w", "-fPIC", "-shared", "-pthread"]
                subprocess.run([*command, path.with_suffix(".cpp"), "-o", path.with_suffix(".so")], check=True)
            self._run = ctypes.CDLL(str(path.with_suffix(".so"))).run
        return self._run


class csr_matrix:
    """A CSR matrix on the device, over the arrays that it is given."""

    def __init__(self, parts: tuple[ndarray, ndarray, ndarray], shape: tuple[int, int]) -> None:
        self.data, self.indices, self.indptr = parts
        self.shape, self.dtype, self.nnz = shape, self.data.dtype, self.data.size


def cupyx() -> dict[str, ModuleType]:
    """Return what stands for `cupyx`, by the names of its modules."""
    made = {name: ModuleType(name) for name in ("cupyx", "cupyx.scipy", "cupyx.scipy.sparse")}
    made["cupyx.scipy"].sparse = made["cupyx.scipy.sparse"]  # type: ignore[attr-defined]
    made["cupyx.scipy.sparse"].csr_matrix = csr_matrix  # type: ignore[attr-defined]
    return made


def module() -> ModuleType:
    """Return what stands for the module `cupy`."""
    made = ModuleType("cupy")
    contents = {
        "ndarray": ndarray,
        "RawKernel": RawKernel,
        "asarray": lambda x: x if isinstance(x, ndarray) else ndarray(np.array(x)),
        "ascontiguousarray": lambda x: x if x._memory.flags.c_contiguous else ndarray(x._memory.copy()),
        "empty": lambda shape, dtype: ndarray(np.full(shape, 77, dtype)),
        "cuda": SimpleNamespace(
            Event=Event,
            Stream=Stream,
            get_current_stream=current,
            alloc_pinned_memory=lambda num_bytes: np.full(num_bytes, 77, np.uint8),
            Device=lambda number=0: SimpleNamespace(compute_capability="70", use=lambda: None),
            is_available=lambda: True,
            runtime=SimpleNamespace(getDeviceCount=lambda: 2),
        ),
    }
    made.__dict__.update(contents)
    return made
