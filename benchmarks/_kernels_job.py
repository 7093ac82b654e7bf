"""One library of kernels.py in a process of its own: reads a request a line, answers each by a line of JSON.

python benchmarks/_kernels_job.py ours|scipy|mkl|torch
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy.sparse import csr_array

from sparsecomm.kernels import prepare
from sparsecomm.kernels.threads import clock

Act = Callable[[], Any]
Dense = np.ndarray[Any, Any]

TOLERANCE: Final = 1e-5  # of |A||X|
_WARM: Final = 25  # products with one vector before the first that counts: ours gets ready for more after 20
_WARM_OF_FEW: Final = 510  # the same for few nonzeros, after 500
_FEW_NONZEROS: Final = 1 << 12
_CHECKED: Final = 4  # columns that are compared with float64
_RANDOM: Final = 1 << 20  # numbers that X repeats


class Job:
    """What a library is asked for, one request after the other."""

    def __init__(self, library: str) -> None:
        self._library = library

    def load(self, folder: str) -> None:
        """Read a matrix that `save_matrix` has written."""
        parts = [np.load(Path(folder, f"{name}.npy")) for name in ("data", "indices", "indptr")]
        shape = tuple(np.load(Path(folder, "shape.npy")).tolist())
        self._matrix = csr_array((parts[0], parts[1], parts[2]), shape)

    def prepare(self, width: int, threads: int) -> float:
        """Get ready for products of a width, compare one with float64, and return the seconds of another."""
        self._threads, matrix = threads, self._matrix
        numbers = np.random.default_rng(0).standard_normal(_RANDOM, dtype=np.float32)
        x = np.resize(numbers, (matrix.shape[1], width))
        out = np.zeros((matrix.shape[0], width), np.float32)
        self._act = _MAKERS[self._library](matrix, x, out, threads)
        self._check(x, self._act())
        vectors = _WARM_OF_FEW if matrix.nnz <= _FEW_NONZEROS else _WARM
        for _ in range(vectors if width == 1 else 1):
            self._act()
        return self.time(1)

    def time(self, loops: int) -> float:
        """Return the seconds of a product, in the mean of so many after one that wakes whoever sleeps."""
        now = clock(self._threads)
        self._act()
        begin = now()
        for _ in range(loops):
            self._act()
        return (now() - begin) / loops

    def _check(self, x: Dense, result: Any) -> None:
        few, matrix = x[:, :_CHECKED].astype(np.float64), self._matrix
        absolute = csr_array((np.abs(matrix.data), matrix.indices, matrix.indptr), matrix.shape)
        scale = absolute.astype(np.float64) @ np.abs(few)
        found = np.asarray(result).reshape(-1, x.shape[1])[:, :_CHECKED]
        error = np.abs(found - matrix.astype(np.float64) @ few) / np.where(scale == 0, 1, scale)
        if error.size and error.max() > TOLERANCE:
            raise SystemExit(f"{self._library} is wrong by {error.max():.1e} of |A||X|")


def save_matrix(matrix: csr_array[Any], folder: Path) -> None:
    """Write a matrix as `Job.load` reads it."""
    for name in ("data", "indices", "indptr", "shape"):
        np.save(folder / f"{name}.npy", np.asarray(getattr(matrix, name)))


def _by_ours(matrix: csr_array[Any], x: Dense, out: Dense, threads: int) -> Act:
    ours = prepare(matrix, implementation="fused", threads=threads)
    return lambda: ours.multiply(x, out)


def _by_scipy(matrix: csr_array[Any], x: Dense, out: Dense, threads: int) -> Act:
    plain = prepare(matrix, implementation="scipy")  # scipy's loops, without the new memory of `@`
    return lambda: plain.multiply(x, out)


def _by_mkl(matrix: csr_array[Any], x: Dense, out: Dense, threads: int) -> Act:
    mkl = import_module("sparse_dot_mkl")
    mkl.mkl_set_num_threads(threads)
    if x.shape[1] == 1:
        vector, result = x[:, 0], out[:, 0]
        return lambda: mkl.dot_product_mkl(matrix, vector, out=result, out_scalar=0.0)
    return lambda: mkl.dot_product_mkl(matrix, x, out=out, out_scalar=0.0)


def _by_torch(matrix: csr_array[Any], x: Dense, out: Dense, threads: int) -> Act:
    torch = import_module("torch")
    warnings.simplefilter("ignore")  # that its sparse tensors are new
    torch.set_num_threads(threads)
    parts = [torch.from_numpy(part) for part in (matrix.indptr, matrix.indices, matrix.data)]
    sparse, dense = torch.sparse_csr_tensor(*parts, size=matrix.shape), torch.from_numpy(x)
    result = torch.from_numpy(out)
    return lambda: torch.mm(sparse, dense, out=result)


_MAKERS: Final[dict[str, Callable[[csr_array[Any], Dense, Dense, int], Act]]] = {
    "ours": _by_ours,
    "scipy": _by_scipy,
    "mkl": _by_mkl,
    "torch": _by_torch,
}
_NEEDED: Final = {"mkl": "sparse_dot_mkl", "torch": "torch"}


def main() -> int:
    library = sys.argv[1]
    try:
        import_module(_NEEDED.get(library, "sparsecomm"))
    except ImportError:
        print("null", flush=True)
        return 0
    print("true", flush=True)
    job = Job(library)
    for line in sys.stdin:
        act, *arguments = json.loads(line)
        print(json.dumps(getattr(job, act)(*arguments)), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
