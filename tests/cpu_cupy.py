"""As much of CuPy as the library uses, on the CPU: kernels are compiled as C++, and streams are lazy.

What is enqueued on a stream runs when somebody waits for it and not before (tests/cpu_streams.py), so that a missing
wait, or memory that is used again too early, gives wrong rows; where ranks read each other's memory
(tests/cpu_links.py), it raises. Arrays turn into numpy's only where CuPy's do.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
import subprocess
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Final

import numpy as np

from tests.cpu_links import Memory, Nccl, runtime
from tests.cpu_streams import Event, HazardError, Stream, check, current, stream_wait_event, world

TYPES: Final = """
struct dim3 { int x, y; };
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
"""
# Threads that never wait for each other may run one after the other; that compiles ten times as fast.
ALONE: Final = """
static dim3 threadIdx, blockIdx, blockDim, gridDim;
template <class T> void atomicAdd(T* target, T value) { *target += value; }
template <class Run> void launch(dim3 grid, int threads, Run run) {
    blockDim = {threads, 1}; gridDim = grid;
    for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y)
        for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x)
            for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x) run();
}
"""
TOGETHER: Final = """
#include <atomic>
#include <barrier>
#include <thread>
#include <vector>
static thread_local dim3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;
static std::barrier<>* together;
static void __syncthreads() { together->arrive_and_wait(); }
template <class T> void atomicAdd(T* target, T value) { std::atomic_ref<T>(*target).fetch_add(value); }
extern "C" { alignas(16) unsigned char memory[1 << 18]; }
template <class Run> void launch(dim3 grid, int threads, Run run) {
    blockDim = {threads, 1}; gridDim = grid;
    std::barrier<> barrier(threads); together = &barrier;
    auto work = [=](int thread) {
        threadIdx = {thread, 0};
        for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y)
            for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) {
                run();
                __syncthreads();
            }
    };
    std::vector<std::thread> all;
    for (int thread = 0; thread < threads; ++thread) all.emplace_back(work, thread);
    for (auto& one : all) one.join();
}
"""
LAUNCH: Final = """
extern "C" void run(int blocks_x, int blocks_y, int threads, void** a) {{
    launch({{blocks_x, blocks_y}}, threads, [=] {{ {name}({arguments}); }});
}}
"""
_SIZES: Final = {"int": 4, "long long": 8, "float": 4, "double": 8}
_folder = tempfile.TemporaryDirectory(prefix="cpu_cupy")


class ndarray:
    """A block on the device."""

    def __init__(self, memory: Any, dtype: Any = None, memptr: Any = None) -> None:
        self._memory = memory if memptr is None else _at(memptr, memory, np.dtype(dtype))
        _keep_in_mind(self._memory)

    shape = property(lambda self: self._memory.shape)
    dtype = property(lambda self: self._memory.dtype)
    ndim = property(lambda self: self._memory.ndim)
    size = property(lambda self: self._memory.size)
    strides = property(lambda self: self._memory.strides)
    itemsize = property(lambda self: self._memory.itemsize)
    nbytes = property(lambda self: self._memory.nbytes)
    flags = property(lambda self: self._memory.flags)
    data = property(lambda self: SimpleNamespace(ptr=self._memory.ctypes.data))
    __cuda_array_interface__ = property(lambda self: self._memory.__array_interface__)

    def __len__(self) -> int:
        return len(self._memory)

    def __getitem__(self, key: Any) -> ndarray:
        return ndarray(self._memory[key])

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._memory.__dlpack_device__()

    def __dlpack__(self, max_version: tuple[int, int] | None = None, **given: Any) -> Any:
        current().synchronize()  # whose stream the consumer goes on with
        return self._memory.__dlpack__(max_version=max_version)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def reshape(self, *shape: int) -> ndarray:
        return ndarray(self._memory.reshape(*shape))

    def view(self, dtype: Any) -> ndarray:
        return ndarray(self._memory.view(dtype))

    def astype(self, dtype: Any, copy: bool = True) -> ndarray:
        return self if self.dtype == dtype and not copy else ndarray(self._memory.astype(dtype))

    def fill(self, value: float) -> None:
        current().launch(lambda stream: stream.push(lambda: self._memory.fill(value)))  # type: ignore[func-returns-value]

    def set(self, rows: np.ndarray[Any, Any], stream: Stream) -> None:
        assert rows.shape == self.shape
        assert rows.dtype == self.dtype
        stream.push(lambda: np.copyto(self._memory, rows))

    def get(self, stream: Stream | None = None, out: Any = None, blocking: bool = True) -> Any:
        place = np.empty_like(self._memory) if out is None else out
        assert place.shape == self.shape
        assert place.flags.c_contiguous
        stream = current() if stream is None else stream
        stream.push(lambda: np.copyto(place, self._memory))
        if blocking:
            stream.synchronize()
        return place


class RawKernel:
    """A kernel whose arguments must have the very sizes that its source declares."""

    memory = Memory()  # replaced for each module

    def __init__(self, source: str, name: str, options: tuple[str, ...] = ()) -> None:
        found = re.search(rf"void {name}\((.*?)\) \{{", source, re.DOTALL)
        assert found, f"no kernel {name}"
        self._kinds = [" ".join(word.split()[:-1]) for word in found[1].split(",")]
        self._name, self._source, self._run = name, source, None

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: Any, *, shared_mem: int = 0) -> None:
        assert len(args) == len(self._kinds), f"{self._name} takes {len(self._kinds)} arguments, not {len(args)}"
        assert shared_mem <= 48 << 10
        values = [self._argument(*pair) for pair in zip(args, self._kinds, strict=True)]
        pointers = (ctypes.c_void_p * len(args))(*(one.ctypes.data for one in values))
        size = grid[0], grid[1] if len(grid) > 1 else 1, block[0]
        uses = _USES.get(self._name, lambda *args: ())
        stream = current()
        if not stream.captures:
            self._push(stream, size, pointers, [values, args], lambda: uses(*args))
            return
        noted, addresses = list(uses(*args)), self._addresses(values)

        def launch(stream: Stream) -> None:
            self._push(stream, size, pointers, [values, _alive_at(addresses)], lambda: noted)

        stream.launch(launch)  # a graph keeps addresses, and no memory

    def _push(self, stream: Stream, size: Any, pointers: Any, held: list[Any], uses: Callable[[], Any]) -> None:
        def run() -> None:
            for rows, row_bytes, writes in uses():
                self.memory.use(rows, row_bytes, writes, stream.ptr, clock)
            self._compiled()(*size, pointers)
            held.clear()  # until here the memory is kept

        with world:
            clock = stream.push(run)

    def _addresses(self, values: list[Any]) -> list[int]:
        """Return the addresses among the arguments."""
        return [int(value) for value, kind in zip(values, self._kinds, strict=True) if kind.endswith("*") and value]

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
            text = TYPES + (TOGETHER if "__syncthreads" in self._source else ALONE)
            text += re.sub("#include.*", "", self._source) + LAUNCH.format(name=self._name, arguments=arguments)
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


_alive: dict[int, weakref.ref[Any]] = {}


def _keep_in_mind(memory: np.ndarray[Any, Any]) -> None:
    """Note where memory begins that lives as long as some array of it."""
    while isinstance(memory.base, np.ndarray):
        memory = memory.base
    _alive[memory.ctypes.data] = weakref.ref(memory)


def _alive_at(addresses: list[int]) -> list[Any]:
    """Return the memory at some addresses.

    Raises:
        HazardError: there is none any more.
    """
    found = [memory for memory in (known() for known in list(_alive.values())) if memory is not None]
    here = [[one for one in found if one.ctypes.data <= at < one.ctypes.data + max(one.nbytes, 1)] for at in addresses]
    if not all(here):
        raise HazardError("a graph is launched whose memory is there no more")
    return here


def _allocated(memory: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    check("memory is allocated")
    _keep_in_mind(memory)
    return memory


def _at(memptr: SimpleNamespace, shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
    memory = memptr.memory
    num_bytes = int(np.prod(shape)) * dtype.itemsize
    assert num_bytes <= memory.num_bytes
    return np.frombuffer((ctypes.c_uint8 * num_bytes).from_address(memory.begin), dtype=dtype).reshape(shape)


def _rows(begin: Any, stride: Any, index: Any, count: Any) -> np.ndarray[Any, Any]:
    """Return the addresses of rows."""
    number = np.arange(count) if isinstance(index, np.uint64) else index._memory[:count]
    return int(begin if isinstance(begin, np.uint64) else begin.data.ptr) + number * int(stride)


def _copy_uses(
    target: Any, to_stride: Any, to: Any, source: Any, of_stride: Any, of: Any, rows: Any, units: Any
) -> Any:
    unit = next(block.itemsize * block.shape[1] for block in (target, source) if isinstance(block, ndarray)) // int(
        units
    )
    row_bytes = unit * int(units)
    yield _rows(source, of_stride * unit, of, rows), row_bytes, False
    yield _rows(target, to_stride * unit, to, rows), row_bytes, True


def _taken(block: ndarray, sources: ndarray, source: ndarray, index: ndarray) -> np.ndarray[Any, Any]:
    begins = sources._memory.astype(np.int64)
    return begins[source._memory] + index._memory * block.strides[0]


def _take_uses(block: Any, to: Any, sources: Any, source: Any, index: Any, rows: Any, units: Any) -> Any:
    yield _taken(block, sources, source, index), block.strides[0], False
    yield _rows(block, block.strides[0], to, rows), block.strides[0], True


def _sum_uses(
    block: Any, to: Any, keep: Any, indptr: Any, sources: Any, source: Any, index: Any, rows: Any, width: Any
) -> Any:
    yield from _take_uses(block, to, sources, source, index, rows, width)


# Of these kernels it is known which rows they use; others use memory of one stream only.
_USES: Final[dict[str, Callable[..., Any]]] = {
    "copy_rows": _copy_uses,
    "take_rows": _take_uses,
    "sum_rows": _sum_uses,
}


def module() -> ModuleType:
    """Return what stands for the module `cupy`; `memory` and `nccl` tell of links between GPUs."""
    made, memory, nccl = ModuleType("cupy"), Memory(), Nccl()
    RawKernel.memory = memory
    contents = {
        "ndarray": ndarray,
        "RawKernel": RawKernel,
        "asarray": lambda x: x if isinstance(x, ndarray) else ndarray(_allocated(np.asarray(x).copy("K"))),
        "ascontiguousarray": lambda x: x if x._memory.flags.c_contiguous else ndarray(_allocated(x._memory.copy())),
        "empty": lambda shape, dtype: ndarray(_allocated(np.full(shape, 77, dtype))),
        "memory": memory,
        "cuda": SimpleNamespace(
            Event=Event,
            Stream=Stream,
            get_current_stream=current,
            alloc_pinned_memory=lambda num_bytes: _allocated(np.full(num_bytes, 77, np.uint8)),
            Device=lambda number=0: SimpleNamespace(id=0, compute_capability="70", use=lambda: None),
            is_available=lambda: True,
            UnownedMemory=lambda begin, num_bytes, owner: SimpleNamespace(begin=begin, num_bytes=num_bytes),
            MemoryPointer=lambda memory, offset: SimpleNamespace(memory=memory),
            nccl=nccl,
            runtime=runtime(memory, stream_wait_event),
        ),
    }
    made.__dict__.update(contents)
    return made
